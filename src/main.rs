//! stigmer: a running Temporal on a machine that has nothing.
//!
//! The way of the data, from the words that were typed to a server that is
//! supervised until it is stopped:
//!
//! ```text
//!  argv ─────────> cli ──> Command, Options            what was typed
//!  environment ──> config ──> Managed | External       what is meant, and who said so
//!                    │
//!  commands/       start run stop restart status logs completions, a file each
//!                    │
//!  daemon/         one for each instance: occupancy, serve, detach, stop
//!    ├── external      a Temporal elsewhere: reach it
//!    ├── install/      find, install ──> Installed: an executable that may be run
//!    │     network       one request: proxy, certificates, redirects
//!    │     download      the body, over connections that come and go
//!    │     unpack        tar.gz ──> the executable, hashed on its way
//!    │     executable    is it one, and for this machine?
//!    │     receipt       what was installed, from where
//!    ├── database      one server for each, none broken for good
//!    └── supervisor/   Plan ──> Supervisor::run: start, watch, stop, start again
//!          server        spawn, signal, reap
//!          readiness     does it serve, does it still?
//!          restart       when again, and when not
//!          diagnosis     why it failed, and what to do
//!          ports         taken by whom
//!          orphan        a Temporal whose daemon was killed
//! ```
//!
//! A module imports only from lines below its own (a test holds this):
//!
//! ```text
//!  commands
//!  daemon
//!  supervisor
//!  database  external  install
//!  config  health  state  log_file
//!  cli  release  lock  events
//!  home  digest  own_file  terminal
//!  ownership
//!  sys
//!  clock  error  pinned
//! ```
//!
//! A new option of a server is a row in `cli` and a line in `config`; a new
//! command is a file in `commands`, and its name twice in the `mod.rs` there;
//! a new fact about Temporal belongs to `supervisor`, about its releases to
//! `release`.
#![deny(unsafe_code)]

mod cli;
mod clock;
mod commands;
mod config;
mod daemon;
mod database;
mod digest;
mod error;
mod events;
mod external;
mod health;
mod home;
mod install;
mod lock;
mod log_file;
mod own_file;
mod ownership;
mod pinned;
mod release;
mod state;
mod supervisor;
mod sys;
mod terminal;

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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    fn sources(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let is_code = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
        entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).filter(is_code).collect()
    }

    /// The lines of the second picture above.
    fn layers() -> Vec<Vec<String>> {
        let picture = include_str!("main.rs").split("```text").nth(2).unwrap().split("```").next().unwrap();
        let words = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
        picture.lines().map(words).filter(|words| !words.is_empty()).collect()
    }

    #[test]
    fn imports_point_down() {
        let layers = layers();
        let layer = |module: &str| layers.iter().position(|names| names.iter().any(|name| name == module));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for path in sources(&root) {
            let own = path.strip_prefix(&root).unwrap().iter().next().unwrap().to_str().unwrap();
            let own = own.trim_end_matches(".rs");
            if own == "main" {
                continue;
            }
            let own_layer = layer(own).unwrap_or_else(|| panic!("{own} is not in the picture"));
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for imported in code.split("crate::").skip(1).flat_map(|rest| {
                let inside = rest.strip_prefix('{').map_or(rest, |rest| rest.split('}').next().unwrap());
                let names: Vec<&str> = if rest.starts_with('{') { inside.split(',').collect() } else { vec![inside] };
                names
                    .into_iter()
                    .map(|name| name.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
            }) {
                let below = imported == own || layer(imported).is_some_and(|layer| layer > own_layer);
                assert!(below, "{} imports {imported}, which is not below {own}", path.display());
            }
        }
    }
}
