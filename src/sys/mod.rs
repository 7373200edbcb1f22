//! The system calls that std does not wrap: the only `unsafe` of the program.
//!
//! Whatever differs between Linux and macOS, beyond the value of a constant,
//! is here too, so that the rest of the program reads the same on both.
#![allow(unsafe_code)]

mod clocks;
mod files;
mod listeners;
mod locks;
mod notices;
mod processes;
mod signals;
mod streams;

pub use self::clocks::{monotonic_microseconds, seconds_since_boot};
pub use self::files::{can_map_shared, free_space, identity, identity_of, start_writeback};
pub use self::listeners::listens;
pub use self::locks::{Signer, sign, signer};
pub use self::notices::abstract_address;
pub use self::processes::{
    Fork, birth, close_all_but, detach_from_terminal, effective_user, executable, exit_code, fork, has_ended, is_alive,
    is_group_stopped, is_of_another_user, is_stopped, is_suspended, mask_arguments, prepare_server, reap_all_but,
    redirect_standard_streams, signal_at_our_death, user_of, wait_for_child, wait_until_ended,
};
pub use self::signals::{
    Forwarder, Handlers, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2, block_signals,
    exit_code_of_signal, is_ignored, remove_on_signal, reset_inherited_signals, signal, signal_group,
};
pub use self::streams::{Ready, columns, is_in_foreground, is_writable, wait, wait_for_reader_gone};
