//! The daemon of an external Temporal: it owns nothing, and knows whether it
//! is still true that one can work with it.

use std::time::{Duration, Instant};

use super::in_words;
use super::probe::{Failure, Probe};
use crate::clock::{after, duration};
use crate::events::{Event, Events, Halt, RESTART_SIGNAL};
use crate::grpc::Patience;
use crate::state::{Lost, State};
use crate::sys;
use crate::tenure::Tenure;
use crate::terminal::{Mark, Terminal};

/// The one wake-up while nothing happens.
const INTERVAL: Duration = Duration::from_secs(30);
/// For all addresses of the name together.
pub const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// Asks the daemon to look at once: there is nothing of ours to restart.
pub const CHECK_SIGNAL: i32 = RESTART_SIGNAL;

/// Asks again and again, and keeps true what the instance's files say, until
/// the daemon is to stop.
pub fn watch(probe: &Probe<'_>, tenure: &mut Tenure, events: &mut Events, terminal: &mut Terminal) -> Halt {
    let (mut next, mut is_asked, mut was_interrupted) = (after(INTERVAL), false, false);
    loop {
        let kept = match events.wait(Some(next)) {
            Err(halt) => return halt,
            Ok(Event::Restart) => {
                is_asked = true;
                Ok(())
            }
            Ok(Event::Deadline) => tenure.keep(terminal),
            Ok(Event::Child) => {
                // As process 1 of a container: none is its own.
                sys::reap_all_but(&[]);
                continue;
            }
            Ok(Event::Keep) => continue,
        };
        if let Err(error) = kept {
            return error.into();
        }
        // Once only: whoever asks all the time would never be answered.
        let interrupt = (!was_interrupted).then(|| events.pending());
        let failure = match probe.ask(Patience { deadline: after(CHECK_LIMIT), interrupt }) {
            Err(Failure::Interrupted) => {
                (next, was_interrupted) = (Instant::now(), true);
                continue;
            }
            answer => answer.err(),
        };
        let state = &mut tenure.state;
        let has_changed = update(state, failure.map(|failure| in_words(failure).why), terminal);
        if let Some(external) = &mut state.external
            && (has_changed || is_asked)
        {
            external.checks += 1;
            tenure.publish(terminal);
        }
        (next, is_asked, was_interrupted) = (after(INTERVAL), false, false);
    }
}

/// Takes in what was found: None, or why it is lost. Whether that is news.
fn update(state: &mut State, failure: Option<String>, terminal: &mut Terminal) -> bool {
    let address = &state.address;
    let Some(external) = &mut state.external else { return false };
    match (&mut external.lost, failure) {
        (None, None) => return false,
        (None, Some(why)) => {
            let text = format!("External Temporal {address} is lost: {why}; asking every {} s", INTERVAL.as_secs());
            terminal.line(Mark::Warning, &text);
            external.lost = Some(Lost { since: sys::seconds_since_boot(), why });
        }
        (Some(lost), None) => {
            let seconds = sys::seconds_since_boot().saturating_sub(lost.since);
            terminal.line(Mark::Done, &format!("External Temporal {address} is back after {}", duration(seconds)));
            external.lost = None;
        }
        (Some(lost), Some(why)) if lost.why != why => lost.why = why,
        (Some(_), Some(_)) => return false,
    }
    true
}
