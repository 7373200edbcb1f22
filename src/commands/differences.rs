//! What was asked for by name, and is not so because a Temporal runs already.

use std::ffi::OsString;
use std::path::Path;

use crate::cli;
use crate::config::{Config, DatabaseChoice, Encryption, External, Managed, Port, Setting, Source};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::state::{Mode, State};
use crate::sys;

/// What asked for it, the value, and what is so instead.
type Difference = (Source, String, String);

/// Fails at the first difference. What nobody asked for is none, nor is what
/// only says how to install, or how long to wait.
pub fn check(config: &Config, state: &State, home: &Home) -> Result<()> {
    let found = match config {
        Config::Managed(wanted) if state.mode == Mode::Managed => of_managed(wanted, state, home),
        Config::Managed(wanted) => instead_of_external(wanted, state),
        Config::External(wanted) => of_external(wanted, state),
    };
    let Some((source, wanted, is)) = found else { return Ok(()) };
    let pid = state.temporal.as_ref().map_or(state.daemon.pid, |temporal| temporal.pid);
    let way_out = match source {
        Source::Variable(name) => format!("unset {name}"),
        _ => format!("leave out {source}"),
    };
    Err(Error::new(format!("cannot use {source} {wanted}: the one that runs already (PID: {pid}) {is}"))
        .hint(format!("stop that one first with 'stigmer local stop', or {way_out} to use it")))
}

fn of_managed(wanted: &Managed, state: &State, home: &Home) -> Option<Difference> {
    if let Some(port) = asked_for(&wanted.port).filter(|port| !has_port(&state.address, *port)) {
        return Some((wanted.port.source, port.to_string(), format!("is at {}", state.address)));
    }
    let ip = wanted.ip.value.to_string();
    if let Some(is) = state.ip.as_ref().filter(|is| wanted.ip.source.is_explicit() && **is != ip) {
        return Some((wanted.ip.source, ip, format!("binds to {is}")));
    }
    if let Some(ui) = &wanted.ui
        && let Some(port) = asked_for(&ui.port)
        && !state.ui_url.as_ref().is_some_and(|url| has_port(url, port))
    {
        let is = state.ui_url.as_ref().map_or("has no Web UI".into(), |url| format!("has its Web UI at {url}"));
        return Some((ui.port.source, port.to_string(), is));
    }
    if let Some(is) = other_executable(wanted, state, home) {
        return Some(is);
    }
    let typed = |arguments: &[OsString]| arguments.join(" ".as_ref()).to_string_lossy().into_owned();
    let source = Source::Flag(cli::TEMPORAL_ARG.long);
    if !wanted.temporal_args.is_empty() && wanted.temporal_args != state.temporal_args {
        let is = if state.temporal_args.is_empty() { "no arguments".into() } else { typed(&state.temporal_args) };
        return Some((source, typed(&wanted.temporal_args), format!("was started with {is}")));
    }
    match (&wanted.database, &state.database) {
        (DatabaseChoice::At(path), Some(is)) if !is_same_file(path, is) => {
            Some((source, path.display().to_string(), format!("uses {}", is.display())))
        }
        _ => None,
    }
}

fn other_executable(wanted: &Managed, state: &State, home: &Home) -> Option<Difference> {
    let is = state.temporal_cli.as_ref()?;
    if let Some(path) = &wanted.executable.value {
        let difference = (wanted.executable.source, path.display().to_string(), format!("is {}", is.display()));
        return (!is_same_file(path, is)).then_some(difference);
    }
    let (version, source) = (wanted.version.value.to_string(), wanted.version.source);
    let is = match &state.temporal_version {
        Some(is) if *is != version => format!("is version {is}"),
        // Whoever put it into the home is warned at its start.
        None if *is != home.installation.executable() => format!("is {}", is.display()),
        _ => return None,
    };
    source.is_explicit().then_some((source, version, is))
}

fn instead_of_external(wanted: &Managed, state: &State) -> Option<Difference> {
    let is = format!("is external, at {}", state.address);
    let argument = wanted.temporal_args.first().map(|_| Source::Flag(cli::TEMPORAL_ARG.long));
    let ui = wanted.ui.as_ref().map(|ui| ui.port.source);
    let sources = [wanted.port.source, wanted.ip.source, wanted.version.source, wanted.executable.source];
    let source = sources.into_iter().chain(ui).chain(argument).find(|source| source.is_explicit());
    source.map(|source| (source, String::new(), is)).or_else(|| of_namespaces(&wanted.namespaces.names, state))
}

fn of_external(wanted: &External, state: &State) -> Option<Difference> {
    let address = &wanted.connection.address;
    let (wanted_address, tls) = (address.value.to_string(), state.external.as_ref().and_then(|it| it.tls.as_ref()));
    if wanted_address != state.address {
        return Some((address.source, wanted_address, format!("is at {}", state.address)));
    }
    match (&wanted.connection.encryption, tls) {
        (Encryption::Always(_, source), None) if state.mode == Mode::External => {
            Some((*source, String::new(), "is asked over cleartext".into()))
        }
        (Encryption::Never(source), Some(tls)) => Some((*source, String::new(), format!("is asked over {tls}"))),
        _ if state.mode == Mode::Managed => None,
        _ => of_namespaces(&wanted.connection.namespaces, state),
    }
}

/// Those of an external Temporal, where none is made.
fn of_namespaces(wanted: &Setting<Vec<String>>, state: &State) -> Option<Difference> {
    let missing = wanted.value.iter().find(|name| !state.namespaces.contains(name))?;
    let is = format!("was checked for {}", state.namespaces.join(", "));
    wanted.source.is_explicit().then(|| (wanted.source, missing.clone(), is))
}

/// The number of a port that somebody chose.
fn asked_for(port: &Setting<Port>) -> Option<u16> {
    match port.value {
        Port::Number(number) if port.source.is_explicit() => Some(number),
        _ => None,
    }
}

/// Whether an address or a URL ends with this port.
fn has_port(address: &str, port: u16) -> bool {
    address.rsplit(':').next().and_then(|text| text.parse().ok()) == Some(port)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    one == other || matches!((sys::identity(one), sys::identity(other)), (Ok(one), Ok(other)) if one == other)
}
