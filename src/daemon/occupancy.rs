//! Who is the daemon of an instance: this process, or one that is there.

use std::thread;
use std::time::Duration;

use super::POLL;
use crate::error::{Error, Result};
use crate::events::KEEP_SIGNAL;
use crate::home::Instance;
use crate::lock::{Holder, Lock};
use crate::state::{Lifetime, Observed, Phase, Process, State, check_hears, elsewhere};
use crate::sys;
use crate::terminal::{Terminal, Wait};

/// Between the end of a process's locks and its own.
const DYING: Duration = Duration::from_millis(100);

pub enum Occupancy {
    /// The instance is ours.
    Lock(Lock),
    /// Another daemon serves it.
    Ready(State),
}

/// Takes the daemon's lock, or waits until its holder is ready or gone: while it
/// installs for as long as that takes, otherwise for at most `patience` after it
/// last came any further.
pub fn lock_or_find(
    instance: &Instance,
    lifetime: Lifetime,
    patience: Duration,
    terminal: &mut Terminal,
) -> Result<Occupancy> {
    let mut wait = Wait::begin();
    let mut last_sign = None;
    let mut request = KeepRequest::default();
    loop {
        let holder = match Lock::try_exclusive(&instance.daemon_lock())? {
            // A daemon whose lock was removed has left its state, and takes the
            // new one when it sees it.
            Some(lock) => match Observed::with_holder(instance, Holder::Nobody)? {
                Observed::Running(_) => Holder::Nobody,
                _ => return Ok(Occupancy::Lock(lock)),
            },
            // Only its signer is asked: looking at the lock would hold it for a
            // moment, and twenty who look would each take the others for a holder.
            None => Lock::signer(&instance.daemon_lock()),
        };
        let state = match Observed::with_holder(instance, holder)? {
            Observed::Elsewhere => return Err(elsewhere("start", instance)),
            Observed::Running(state) => Some(state),
            Observed::Absent | Observed::Silent(_) => None,
        };
        if let Some(State { daemon, .. }) =
            state.as_ref().filter(|state| !state.serves() && sys::is_suspended(state.daemon.pid))
        {
            check_hears("start", daemon)?;
        }
        // Not its attempts: they may fail for ever.
        let sign = state.as_ref().map(|state| (state.daemon.pid, state.phase, state.times_ready));
        let (who, doing) = activity(state.as_ref());
        wait.explain(terminal, || format!("Another stigmer{who} is {doing}; waiting for it."));
        if sign != last_sign {
            last_sign = sign;
            wait.renew();
        }
        let installs = state.as_ref().is_some_and(|state| state.phase == Phase::Installing);
        if !installs && wait.elapsed() > patience {
            let text = format!("cannot start: another stigmer{who} has been {doing} for {} s", patience.as_secs());
            return Err(Error::new(text).hint("stigmer local stop --force"));
        }
        // One that is just being killed has lost its lock too.
        let is_certain = holder != Holder::Nobody || wait.elapsed() > DYING;
        if let Some(state) = state.filter(State::serves).filter(|_| is_certain)
            && (lifetime == Lifetime::Shared || request.is_granted(&state, instance)?)
        {
            return Ok(Occupancy::Ready(state));
        }
        thread::sleep(POLL);
    }
}

/// The request to a daemon that `run` started to go on after it.
#[derive(Default)]
struct KeepRequest {
    /// Held until it is granted: as long as somebody shares this lock, no
    /// `run` that ends stops the daemon.
    users_lock: Option<Lock>,
    asked: Option<Process>,
}

impl KeepRequest {
    fn is_granted(&mut self, state: &State, instance: &Instance) -> Result<bool> {
        if state.lifetime == Lifetime::Kept {
            return Ok(true);
        }
        if self.users_lock.is_none() {
            self.users_lock = Lock::try_shared(&instance.users_lock())?;
        }
        if self.users_lock.is_some() && self.asked.as_ref() != Some(&state.daemon) {
            sys::signal(state.daemon.pid, KEEP_SIGNAL);
            self.asked = Some(state.daemon.clone());
        }
        Ok(false)
    }
}

/// Which process holds the lock, and what it is doing.
fn activity(state: Option<&State>) -> (String, String) {
    let Some(state) = state else { return (String::new(), "starting".into()) };
    let doing = match (state.phase, &state.retry) {
        (Phase::Installing, _) => "installing Temporal".into(),
        (Phase::Stopping, _) => "stopping Temporal".into(),
        (_, Some(retry)) => format!("trying to start Temporal again ({})", retry.why),
        (Phase::Starting | Phase::Restarting | Phase::Ready, None) => "starting Temporal".into(),
    };
    (format!(" (PID: {})", state.daemon.pid), doing)
}
