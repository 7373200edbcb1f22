//! A Temporal of ours: its database, its executable, and the two supervised.

use std::cell::Cell;

use super::Context;
use crate::clock::after;
use crate::config::{DatabaseChoice, Managed};
use crate::database::Database;
use crate::error::Result;
use crate::events::{Events, Halt};
use crate::exchange;
use crate::install::{self, Found};
use crate::state::Phase;
use crate::supervisor::{self, Endpoints, OnReady, Plan, Supervisor};
use crate::tenure::Tenure;
use crate::terminal::{Mark, Terminal};
use crate::upgrade::{Pair, Upgrade, Wanted};

pub fn serve(
    context: &Context<'_>,
    config: &Managed,
    tenure: &mut Tenure,
    terminal: &mut Terminal,
    on_ready: OnReady<'_>,
) -> Result<(), Halt> {
    let events = &mut Events::new()?;
    let endpoints = Endpoints::choose(config)?;
    tenure.state.address = endpoints.address().to_string();
    tenure.state.ui_url = endpoints.ui_url();
    tenure.state.phase = Phase::Installing;
    tenure.publish(terminal);
    if !config.ip.value.is_loopback() {
        let text =
            format!("Temporal will be reachable by others: it binds to {} and asks for no password.", config.ip.value);
        terminal.line(Mark::Warning, &text);
    }
    let trial = Cell::new(None);
    let mut choose = |database: Option<&Database>, events: &mut Events, terminal: &mut Terminal| {
        let pair = find_pair(context, config, database, (events, terminal))?;
        trial.set(pair.trial);
        Ok(pair.choice)
    };
    let mut database = open_database(context, config, events, terminal)?;
    let mut choice = choose(database.as_ref(), events, terminal)?;
    loop {
        let (home, directory) = (&context.home, context.directory.clone());
        let plan = Plan { config, endpoints, home, choice, database, directory };
        let on_ready = OnReady { stop: on_ready.stop, then: &mut *on_ready.then };
        let result = Supervisor::new(plan, &mut choose, events, terminal, tenure)
            .and_then(|supervisor| supervisor.run(on_ready));
        let Some(trial) = trial.take() else { return Ok(result?) };
        database = open_database(context, config, events, terminal)?;
        // None when it has served.
        let undone = database.as_ref().map(|database| exchange::undo_if_pending(database, home)).transpose()?;
        let Some(undone) = undone.flatten() else { return Ok(result?) };
        match trial.failed(&undone, result, terminal)? {
            Some(old) => choice = old.choice,
            None => return Ok(()),
        }
    }
}

fn open_database(
    context: &Context<'_>,
    config: &Managed,
    events: &mut Events,
    terminal: &mut Terminal,
) -> Result<Option<Database>, Halt> {
    let path = match &config.database {
        DatabaseChoice::Home => context.home.instance.database(),
        DatabaseChoice::At(path) => path.clone(),
        DatabaseChoice::InMemory => return Ok(None),
    };
    Database::open(path, events, terminal).map(Some)
}

/// The executable that is to serve the database, installed where it is missing,
/// and the database made what that one needs.
fn find_pair(
    context: &Context<'_>,
    config: &Managed,
    database: Option<&Database>,
    (events, terminal): (&mut Events, &mut Terminal),
) -> Result<Pair, Halt> {
    let home = &context.home;
    let _turn = install::wait_for_turn(home, terminal, |delay| events.wait(Some(after(delay))).map(drop))?;
    let upgrade = database.map(|database| Upgrade { config, home, database, variable: context.variable });
    let tried = upgrade.as_ref().map(|upgrade| upgrade.recover(terminal)).transpose()?.flatten();
    let mut found = install::find(config, home, terminal)?;
    if let (Some(upgrade), Some(exchange)) = (&upgrade, tried) {
        let installed = match &found {
            Found::Usable(installed) => Some(installed),
            Found::Missing(_) => None,
        };
        if let Some(pair) = upgrade.resume(&exchange, installed, terminal)? {
            return Ok(pair);
        }
        found = install::find(config, home, terminal)?;
    }
    let wanted = match found {
        Found::Usable(installed) => Wanted::Placed(installed),
        Found::Missing(fallback) => {
            // A port that is taken is reported before the download, not after it.
            supervisor::check_ports(config)?;
            if let Some(upgrade) = &upgrade
                && let Some(pair) = upgrade.forestall(fallback.as_ref(), events, terminal)?
            {
                return Ok(pair);
            }
            match install::fetch(config, home, context.variable, terminal) {
                Ok(fetched) => Wanted::Fetched(fetched, fallback),
                Err(error) => Wanted::Placed(install::fall_back(error, fallback, terminal)?),
            }
        }
    };
    match &upgrade {
        Some(upgrade) => upgrade.prepare(wanted, events, terminal),
        None => Ok(Pair::of(wanted.place(terminal)?)),
    }
}
