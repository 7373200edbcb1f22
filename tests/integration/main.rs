//! Black-box tests: the built program, a stand-in for Temporal, and a network
//! on loopback.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod attack;
mod cache;
mod cli;
mod client;
mod completions;
mod container;
mod download;
mod ephemeral;
mod errors;
mod external;
mod external_tls;
mod install;
mod installer;
mod kept;
mod layers;
mod lifecycle;
mod namespaces;
mod needs;
mod never;
mod readme;
mod run;
mod service;
mod upgrade;
