//! The program's own modules, as a library for the fuzz targets.
#![allow(dead_code)]

#[path = "../../../src/cli.rs"]
mod cli;
#[path = "../../../src/config.rs"]
pub mod config;
#[path = "../../../src/error.rs"]
mod error;
#[path = "../../../src/health.rs"]
pub mod health;
#[path = "../../../src/home.rs"]
mod home;
#[path = "../../../src/install/mod.rs"]
pub mod install;
#[path = "../../../src/sys.rs"]
mod sys;
#[path = "../../../src/terminal.rs"]
mod terminal;
