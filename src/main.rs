//! stigmer: a running Temporal on a machine that has nothing.
//!
//! The way of the data, from the words that were typed to a server that is
//! supervised until it is stopped; each module imports only what stands below
//! or beside it here:
//!
//! ```text
//!  argv ──> cli ──> Command ─┐        the table of commands and options
//!  environment ──> config ───┴─> Config: Managed | External, each value with its source
//!                                  │
//!  commands/   start run stop restart status logs completions, a file each
//!                                  │
//!  daemon      one for each home: lock, serve, detach, stop
//!    │              │                         │
//!  external     install::ensure          supervisor::Supervisor
//!  (reach it)   release  what, where     server     spawn, signal, reap
//!               network  one request     events     signals as events
//!               download resumed body    restart    when again, when not
//!               digest   SHA-256         database   one server, never broken
//!               unpack   tar.gz -> file  ports      taken by whom
//!               receipt  what was put    (health    do you serve?)
//!                                  │
//!  state lock log_file home        the files under ~/.stigmer
//!  own_file                        how the small ones are opened
//!  terminal                        what the user sees
//!  error sys                       the one error; the only unsafe
//! ```
//!
//! A new option is a row in `cli` and a line in `config`; a new command is a
//! spec in `cli` and a file in `commands`; a new fact about Temporal belongs
//! to `supervisor`, about its releases to `install::release`.
#![deny(unsafe_code)]

mod cli;
mod commands;
mod config;
mod daemon;
mod digest;
mod error;
mod external;
mod health;
mod home;
mod install;
mod lock;
mod log_file;
mod own_file;
mod release;
mod state;
mod supervisor;
mod sys;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::Command;
use crate::daemon::Context;
use crate::error::Result;
use crate::home::{HOME_VARIABLE, Home};

fn main() -> ExitCode {
    sys::reset_inherited_signals();
    std::panic::set_hook(Box::new(report_bug));
    match run() {
        Ok(code) => code.into(),
        Err(error) => {
            if !error.is_already_told() {
                terminal::print_error(&error, &variable);
            }
            error.exit_code().into()
        }
    }
}

/// Does what was typed; returns the exit code.
fn run() -> Result<u8> {
    let command = cli::parse(std::env::args_os().skip(1))?;
    match command {
        Command::Help(command) => return commands::print(&cli::help(command)).map(|()| 0),
        Command::Version => return commands::print(concat!("stigmer ", env!("CARGO_PKG_VERSION"), "\n")).map(|()| 0),
        Command::Completions(shell) => return commands::print(&commands::completions::script(shell)).map(|()| 0),
        _ => {}
    }
    let home = Home::resolve(variable(HOME_VARIABLE), home::user_home())?;
    let context =
        Context { home: &home, variable: &variable, directory: std::env::current_dir().unwrap_or_else(|_| "/".into()) };
    match command {
        Command::Start { detach, server } => {
            commands::start::start(&context, &config::resolve(&server, &variable, &context.directory)?, detach)
                .map(|()| 0)
        }
        Command::Run { server, program, arguments } => commands::run::run(
            &context,
            &config::resolve(&server, &variable, &context.directory)?,
            &program,
            &arguments,
        ),
        Command::Stop { force } => commands::stop::stop(&context, force).map(|()| 0),
        Command::Restart => commands::restart::restart(&home).map(|()| 0),
        Command::Status { json } => commands::status::status(&home, json),
        Command::Logs { follow, lines } => commands::logs::logs(&home, follow, lines).map(|()| 0),
        Command::Help(_) | Command::Version | Command::Completions(_) => Ok(0),
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn report_bug(panic: &std::panic::PanicHookInfo<'_>) {
    use std::io::Write;
    let _ = writeln!(
        std::io::stderr(),
        "error: stigmer {} has a bug: {panic}\nhint: please report it with what you typed; \
         'stigmer local stop' cleans up",
        env!("CARGO_PKG_VERSION")
    );
}
