//! What this home gives to a client of its Temporal: an environment.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::Managed;
use crate::environment::{self, Changes, Local};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::own_file;
use crate::state::{Mode, State};

/// For a client of the daemon's Temporal. The namespace is the one that was
/// asked for here, or else the daemon's.
pub fn of_daemon(home: &Home, config: &Managed, state: &State) -> Result<Changes> {
    let asked = config.namespaces.names.source.is_explicit();
    let of_state = state.namespaces.first().filter(|_| !asked).map(String::as_str);
    let namespace = of_state.unwrap_or(config.namespaces.first());
    match state.mode {
        Mode::Managed => at(home, config, &state.address, namespace),
        Mode::External => {
            let found = state.external.as_ref().map_or(Vec::new(), |external| external.variables.clone());
            Ok(of_external(&state.address, namespace, found))
        }
    }
}

/// For a client of a Temporal of ours at `address`.
pub fn of_local(home: &Home, config: &Managed, address: &str) -> Result<Changes> {
    at(home, config, address, config.namespaces.first())
}

/// For a client of somebody else's; `found` is what else it needs, and, with
/// None, what it must not have.
pub fn of_external(address: &str, namespace: &str, found: Vec<(String, Option<String>)>) -> Changes {
    let mut changes = environment::of_external(address, namespace);
    for (name, value) in found {
        match value {
            Some(value) => changes.set.push((name.into(), value.into())),
            None => changes.unset.push(name.into()),
        }
    }
    changes
}

fn at(home: &Home, config: &Managed, address: &str, namespace: &str) -> Result<Changes> {
    let configuration = empty_configuration(home)?;
    let chosen = config.executable.value.as_deref().and_then(Path::parent);
    let local = Local {
        address,
        namespace,
        configuration: &configuration,
        programs: chosen.unwrap_or(&home.installation.directory),
    };
    Ok(environment::of_local(&local, &variables()))
}

fn variables() -> Box<environment::Variables> {
    std::env::vars_os().collect()
}

/// Made where there is none, or where a client has written to it.
fn empty_configuration(home: &Home) -> Result<PathBuf> {
    let path = home.instance.empty_configuration();
    if own_file::read(&path).is_ok_and(|text| text.is_empty()) {
        return Ok(path);
    }
    match own_file::create(&path) {
        // Another process was faster, and made the same.
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => Err(Error::io_in_home("create", &path, &cause)),
        _ => Ok(path),
    }
}
