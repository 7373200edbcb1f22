//! One file for each command; what they share stands here.

pub mod completions;
pub mod logs;
pub mod restart;
pub mod run;
pub mod start;
pub mod status;
pub mod stop;

use std::io::{self, Write};

use crate::error::{Error, Result, reason};

/// Prints a command's data. A reader that has seen enough is no failure.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(format!("cannot write to stdout: {}", reason(&cause))))
        }
        _ => Ok(()),
    }
}
