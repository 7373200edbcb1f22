//! The disk that the database is on, and whether there is room.
//!
//! What Temporal says of a full disk is one line among many, and while it serves
//! it goes on to answer health checks, though no workflow gets any further.

use std::path::Path;

use super::{Plan, Supervisor};
use crate::database::Database;
use crate::sys;
use crate::terminal::Mark;

/// Measured: a new database takes 3 MB, and a write-ahead log grows to 7 MB.
pub const LOW: u64 = 8_000_000;
/// With so much there is room again: the more than `LOW`, the less is said of a
/// disk that stays close to it.
const ENOUGH: u64 = 12_000_000;
/// So little that nothing else need be suspected.
pub const FULL: u64 = 1_000_000;
pub const NEEDED: &str = "a new database takes 3 MB, and its write-ahead log grows to 7 MB";

/// How little is free on the disk of `directory`, when it is less than `limit`.
pub fn shortage(directory: &Path, limit: u64) -> Option<String> {
    sys::free_space(directory).filter(|free| *free < limit).map(|free| in_words(free, directory))
}

fn in_words(free: u64, directory: &Path) -> String {
    let megabytes = free / 1_000_000;
    let are = if megabytes == 1 { "is" } else { "are" };
    format!("{megabytes} MB {are} free on the disk of {}", directory.display())
}

/// Where the server writes.
fn directory<'a>(plan: &'a Plan<'_>) -> &'a Path {
    let of_database = plan.database.as_ref().map(Database::path).and_then(Path::parent);
    of_database.unwrap_or_else(|| plan.home.instance.log_directory())
}

impl Supervisor<'_> {
    /// To be called now and then while the server serves: says when room is
    /// short, and when it is not any more.
    pub(super) fn look_at_disk(&mut self) {
        let directory = directory(&self.plan);
        let Some(free) = sys::free_space(directory) else { return };
        let is_short = free < if self.is_disk_short { ENOUGH } else { LOW };
        if is_short == self.is_disk_short {
            return;
        }
        self.is_disk_short = is_short;
        let (mark, text) = match is_short {
            true => {
                let free = in_words(free, directory);
                (Mark::Warning, format!("Only {free}: once it is full, workflows wait for room."))
            }
            false => (Mark::Info, format!("There is room again on the disk of {}.", directory.display())),
        };
        self.terminal.line(mark, &text);
    }

    /// What is free, when it is less than `limit`.
    pub(super) fn shortage(&self, limit: u64) -> Option<String> {
        shortage(directory(&self.plan), limit)
    }
}
