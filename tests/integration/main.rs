//! Black-box tests: the built program, a stand-in for Temporal, and a network
//! on loopback.

#[path = "../support/mod.rs"]
mod support;

mod attack;
mod cli;
mod download;
mod errors;
mod external;
mod install;
mod installer;
mod layers;
mod lifecycle;
mod namespaces;
mod never;
mod readme;
mod run;
