//! stigmer: a running Temporal on a machine that has nothing.
//!
//! The way of the data, from the words that were typed to a server that is
//! supervised until it is stopped:
//!
//! ```text
//!  argv ─────────> cli ──> Command, Options            what was typed
//!  environment ──> config ──> Managed | External       what is meant, and who said so
//!                    │
//!  commands/       a file each: start run stop restart status logs temporal env completions man
//!    ├── environment   of a client: what is set, what is taken out
//!                    │
//!  daemon/         one for each instance: occupancy, serve, detach, stop
//!    ├── external/     a Temporal elsewhere: can one work with it, and still?
//!    │     probe         asked step by step, as its clients would
//!    │     tls           verified, with HTTP/2 in it
//!    │     cause         what is wrong, and the setting to change
//!    │     watch         asked again as long as the daemon serves it
//!    ├── install/      find, fetch, put in place ──> Installed: an executable that may be run
//!    │     fetch         a release ──> Fetched: verified, not yet in place
//!    │     cache         those that other homes of the user have
//!    │     trust         what it must be
//!    │     network       one request: proxy, certificates, redirects
//!    │     connection    to the address that answers, as long as enough comes
//!    │     download      the body, over connections that come and go
//!    │     kept          what came of it, for the next process
//!    │     failure       why it failed, from the socket to the user
//!    │     unpack        tar.gz ──> the executable, hashed on its way
//!    │     partial       the file being made
//!    │     executable    is it one, and for this machine?
//!    │     receipt       what was installed, from where
//!    │     turn          one process at a time
//!    ├── upgrade/      another Temporal for a database: both change, or neither
//!    │     sqlite        the program sqlite3, which compares and copies
//!    │     exchange      the pair, kept until the new one has served
//!    │     record        which Temporal the database is of
//!    ├── namespaces    made what they were asked to be
//!    ├── tenure        what it holds of the home, put back when it is taken away
//!    ├── notify        a service manager knows
//!    ├── database      one server for each, none broken for good
//!    └── supervisor/   Plan ──> Supervisor::run: start, watch, stop, start again
//!          server        spawn, signal, reap
//!          program       the executable: whose, and still the one?
//!          readiness     does it serve, does it still?
//!          listener      is it ours that answers?
//!          held          it stands still for a moment
//!          restart       when again, and when not
//!          fresh         a database as an executable makes it
//!          ephemeral     one for one command: in memory, held by `run` itself
//!          diagnosis     why it failed, and what to do
//!          ports         free ones, and who took the others
//!          belongings    log, database, executable: still there?
//!          disk          is there room?
//!          orphan        a Temporal whose daemon was killed
//! ```
//!
//! A module imports only from lines below its own (a test holds this):
//!
//! ```text
//!  commands
//!  daemon
//!  upgrade
//!  supervisor
//!  exchange  external
//!  database  install  namespaces  tenure
//!  config  health  state  log_file  record
//!  cli  release  lock  events  grpc
//!  certificates  cryptography  home  digest  notify  own_file  terminal
//!  ownership
//!  error
//!  sys
//!  clock  environment  pinned
//! ```
//!
//! A new option of a server is a row in `cli` and a line in `config`; a new
//! command is a file in `commands`, and its name twice in the `mod.rs` there;
//! a new fact about Temporal belongs to `supervisor`, about its releases to
//! `release`.
#![deny(unsafe_code)]

mod certificates;
mod cli;
mod clock;
mod commands;
mod config;
mod cryptography;
mod daemon;
mod database;
mod digest;
mod environment;
mod error;
mod events;
mod exchange;
mod external;
mod grpc;
mod health;
mod home;
mod install;
mod lock;
mod log_file;
mod namespaces;
mod notify;
mod own_file;
mod ownership;
mod pinned;
mod record;
mod release;
#[cfg(test)]
mod scratch;
mod state;
mod supervisor;
mod sys;
mod tenure;
mod terminal;
mod upgrade;

use std::process::ExitCode;

use crate::cli::Request;
use crate::error::Result;

fn main() -> ExitCode {
    sys::reset_inherited_signals();
    std::panic::set_hook(Box::new(report_bug));
    match run() {
        Ok(code) => code.into(),
        Err(error) => {
            terminal::print_error(&error, &|name| std::env::var_os(name));
            error.exit_code().into()
        }
    }
}

/// Does what was typed; returns the exit code.
fn run() -> Result<u8> {
    match cli::parse(&commands::TOP, std::env::args_os().skip(1))? {
        Request::Print(text) => commands::print(&text),
        Request::Run(run, typed) => run(&typed),
    }
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
