//! A daemon in the background, and the process that waits until it is ready.
//!
//! They share a pipe: one byte says that Temporal serves; anything else is the
//! text of the error with which the daemon ended.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};

use super::{Request, Served, serve};
use crate::error::{Error, Result};
use crate::log_file;
use crate::notify::Notifier;
use crate::release;
use crate::state::{Lifetime, State};
use crate::supervisor::OnReady;
use crate::sys::{self, Fork, Forwarder, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use crate::terminal::Terminal;

/// What is passed on: to a daemon that is starting, and to the command of `run`.
pub const FORWARDED: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
/// What stops a daemon in the background, as people are told.
pub const STOP_COMMAND: &str = "'stigmer local stop'";
const READY: &[u8] = b"\0";

/// Runs `serve` in a background process and returns when it is ready, or has
/// failed; its lines until then go to our streams. Signals that come from now
/// on wait in the forwarder.
pub fn detach(
    request: &Request<'_>,
    mut terminal: Terminal,
    on_running: &dyn Fn(&State, &mut Terminal) -> Result<()>,
) -> Result<Forwarder> {
    request.context.home.create()?;
    let failed = |cause| Error::io("start", "the background process", &cause);
    let (report, reporter) = io::pipe().map_err(failed)?;
    // A start that is interrupted takes its daemon down too, however early.
    let blocked = sys::block_signals(&FORWARDED).map_err(failed)?;
    match sys::fork().map_err(failed)? {
        Fork::Parent(pid) => {
            drop(reporter);
            let forwarder = Forwarder::new(&FORWARDED).map_err(failed)?;
            forwarder.pass_to(pid, &[]);
            drop(blocked);
            wait_until_ready(report, pid, &forwarder)?;
            forwarder.pause();
            Ok(forwarder)
        }
        Fork::Child => {
            drop((report, blocked));
            // They stay in the process list as long as it lives.
            sys::mask_arguments(release::credentials);
            // What the caller holds stays the caller's alone: nobody may have to
            // wait for the end of a pipe, or for a lock, because of the daemon.
            sys::close_all_but(&reporter);
            let code = serve_detached(request, &mut terminal, reporter, on_running);
            std::process::exit(code.into());
        }
    }
}

/// The parent's side.
fn wait_until_ready(mut report: PipeReader, daemon: u32, forwarder: &Forwarder) -> Result<()> {
    let mut text = Vec::new();
    // The pipe ends when the daemon is ready, or with it.
    let _ = report.read_to_end(&mut text);
    // What was passed on in the last moment stops it, ready or not.
    if text == READY && forwarder.received().is_none() {
        return Ok(());
    }
    let failed = |why: &str| Error::new(format!("cannot start the daemon: {why}"));
    let code = sys::wait_for_child(daemon).unwrap_or(1);
    let by_signal = code.checked_sub(sys::exit_code_of_signal(0)).map(i32::from);
    Err(match (code, by_signal, forwarder.received()) {
        (0, _, Some(signal)) | (_, Some(_), Some(signal)) => {
            failed("interrupted before it was ready").with_exit_code(sys::exit_code_of_signal(signal))
        }
        (0, ..) | (_, Some(SIGINT | SIGTERM | SIGHUP), _) => failed("it was stopped before it was ready"),
        (_, Some(signal), _) => failed(&format!("signal {signal} ended it")),
        _ => Error::relayed(&String::from_utf8_lossy(&text)).with_exit_code(code),
    })
}

/// The child's side. Returns its exit code.
fn serve_detached(
    request: &Request<'_>,
    terminal: &mut Terminal,
    reporter: PipeWriter,
    on_running: &dyn Fn(&State, &mut Terminal) -> Result<()>,
) -> u8 {
    let mut reporter = Some(reporter);
    let mut report = |bytes: &[u8]| reporter.take().map(|mut reporter| reporter.write_all(bytes));
    let result = (|| {
        sys::detach_from_terminal().map_err(|cause| Error::io("detach from", "the terminal", &cause))?;
        let log = log_file::open(&request.context.home.instance.daemon_log())?;
        let copy = || log.try_clone().map_err(|cause| Error::io("open", "the daemon's log", &cause));
        terminal.also_to(copy()?);
        let streams = copy()?;
        let mut release = |terminal: &mut Terminal| {
            // The terminal is released before its user reads that it is ready.
            if let Ok(null) = File::open("/dev/null") {
                let _ = sys::redirect_standard_streams(&null, &streams);
            }
            terminal.leave_stream();
            report(READY);
        };
        let stop = (request.lifetime == Lifetime::Kept).then_some(STOP_COMMAND);
        // A service manager would wait for the process that it started.
        serve(request, Notifier::default(), terminal, OnReady { stop, then: &mut release })
    })();
    let result = match result {
        Ok(Served::AlreadyRunning(state)) => on_running(&state, terminal).map(|()| report(READY)),
        Ok(Served::Stopped) => Ok(None),
        Err(error) => Err(error),
    };
    match result {
        Ok(_) => 0,
        Err(error) => {
            terminal.log_error(&error);
            report(error.to_string().as_bytes());
            error.exit_code()
        }
    }
}
