//! The program's own modules, as a library for the fuzz targets.
#![allow(dead_code, unused_imports)]

#[path = "../../../src/certificates.rs"]
mod certificates;
#[path = "../../../src/cli.rs"]
mod cli;
#[path = "../../../src/clock.rs"]
mod clock;
#[path = "../../../src/config/mod.rs"]
pub mod config;
#[path = "../../../src/cryptography.rs"]
mod cryptography;
#[path = "../../../src/digest.rs"]
mod digest;
#[path = "../../../src/error.rs"]
mod error;
#[path = "../../../src/grpc/mod.rs"]
pub mod grpc;
#[path = "../../../src/home.rs"]
mod home;
#[path = "../../../src/install/mod.rs"]
pub mod install;
#[path = "../../../src/lock.rs"]
mod lock;
#[path = "../../../src/own_file.rs"]
mod own_file;
#[path = "../../../src/ownership.rs"]
mod ownership;
#[path = "../../../src/pinned.rs"]
mod pinned;
#[path = "../../../src/record.rs"]
mod record;
#[path = "../../../src/release.rs"]
pub mod release;
#[path = "../../../src/sys/mod.rs"]
mod sys;
#[path = "../../../src/terminal.rs"]
mod terminal;
