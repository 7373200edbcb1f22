//! Another Temporal for a database that one has served: both change, or neither.
//!
//! Temporal makes its tables in a new database alone, and looks for none. So
//! before another one than the last is put in its place or started, the schema
//! that it makes is compared with the one that is there; where they differ, all
//! rows move to a database that the new one has made, or the old pair stays.
//! The same one again is not looked at.

mod schema;
mod sqlite;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use self::schema::{Look, Stop};
use self::sqlite::{Job, Sqlite, Workspace};
use crate::config::{Managed, Setting};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::events::{Events, Halt};
use crate::exchange::{self, Exchange, Left};
use crate::home::Home;
use crate::install::{Fetched, Installed};
use crate::record::{Program, Record, Refusal, Until, fingerprint};
use crate::release::Version;
use crate::supervisor::{Choice, check_ports, program};
use crate::sys;
use crate::terminal::{Mark, Terminal};

const INSTALL_SQLITE: &str = "install sqlite3, 3.37 or newer";
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// A database, and who asks.
pub struct Upgrade<'a> {
    pub config: &'a Managed,
    pub home: &'a Home,
    pub database: &'a Database,
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
}

/// What is to serve the database.
pub enum Wanted<'a> {
    /// It is in its place.
    Placed(Installed),
    /// It is not yet; and what is, where nobody asked for another one by name.
    Fetched(Fetched<'a>, Option<Installed>),
}

/// What will serve the database.
pub struct Pair {
    pub choice: Choice,
    /// Where it has not served yet, and something else has.
    pub trial: Option<Trial>,
}

/// What to do where a new pair does not serve.
pub struct Trial {
    /// The executable of the old pair; None where the new one was asked for.
    fallback: Option<Installed>,
}

impl Wanted<'_> {
    /// Puts it in its place.
    pub fn place(self, terminal: &mut Terminal) -> Result<Installed> {
        match self {
            Wanted::Placed(installed) => Ok(installed),
            Wanted::Fetched(fetched, _) => fetched.put_in_place(terminal),
        }
    }

    /// From now on this can be put in place in the middle of something else.
    fn leave_signals(&mut self) {
        if let Wanted::Fetched(fetched, _) = self {
            fetched.leave_signals();
        }
    }

    fn fallback(self) -> Option<Installed> {
        match self {
            Wanted::Placed(_) => None,
            Wanted::Fetched(_, fallback) => fallback,
        }
    }

    /// What was in its place.
    fn replaced(&self) -> Option<Program> {
        match self {
            Wanted::Placed(_) => None,
            Wanted::Fetched(_, fallback) => fallback.as_ref().map(program_of),
        }
    }

    fn executable(&self) -> &Path {
        match self {
            Wanted::Placed(installed) => &installed.executable,
            Wanted::Fetched(fetched, _) => fetched.executable(),
        }
    }

    fn program(&self) -> Program {
        match self {
            Wanted::Placed(installed) => program_of(installed),
            Wanted::Fetched(fetched, _) => Program { version: Some(fetched.version().clone()), fingerprint: None },
        }
    }
}

/// A release is known by its version, another executable by itself.
fn program_of(installed: &Installed) -> Program {
    match &installed.version {
        Some(version) => Program { version: Some(version.clone()), fingerprint: None },
        None => Program { version: None, fingerprint: fingerprint(&installed.executable) },
    }
}

impl Pair {
    pub fn of(installed: Installed) -> Pair {
        let program = program_of(&installed);
        Pair::known_as(program, installed)
    }

    fn known_as(program: Program, installed: Installed) -> Pair {
        Pair { choice: Choice { installed, program, refusal: None, remark: String::new() }, trial: None }
    }
}

impl Upgrade<'_> {
    /// Undoes what a start before this one left half done. A new pair that was
    /// being tried is returned, for it may have served.
    pub fn recover(&self, terminal: &mut Terminal) -> Result<Option<Exchange>> {
        match exchange::recover(self.database, self.home)? {
            Left::Nothing => Ok(None),
            Left::ToBeTried(exchange) => Ok(Some(exchange)),
            Left::Undone(exchange) => {
                say_undone(&exchange, "was interrupted", terminal);
                Ok(None)
            }
        }
    }

    /// Goes on with a trial that was interrupted, where `installed` is the new
    /// one, and wanted; otherwise all is as before.
    pub fn resume(
        &self,
        exchange: &Exchange,
        installed: Option<&Installed>,
        terminal: &mut Terminal,
    ) -> Result<Option<Pair>> {
        let Some(installed) = installed.filter(|installed| program_of(installed).is(&exchange.to)) else {
            exchange::undo_if_pending(self.database, self.home)?;
            say_undone(exchange, "was interrupted", terminal);
            return Ok(None);
        };
        let to = name(&exchange.to);
        terminal.line(Mark::Warning, &format!("The upgrade to {to} was interrupted; going on with it."));
        let pair = Pair::known_as(exchange.to.clone(), installed.clone());
        let old = Installed { executable: self.home.installation.executable(), version: exchange.from.version.clone() };
        let fallback = Some(old).filter(|old| exchange.has_previous() && old.version.is_some());
        Ok(Some(self.on_trial(pair, fallback, exchange.has_migrated().then_some(&exchange.from))))
    }

    /// Before a download: a pair that is to serve instead, where it is known
    /// already that it would be in vain.
    pub fn forestall(
        &self,
        fallback: Option<&Installed>,
        events: &mut Events,
        terminal: &mut Terminal,
    ) -> Result<Option<Pair>, Halt> {
        if !self.database.is_complete() {
            return Ok(None);
        }
        let wanted = &self.config.version.value;
        let record = Record::of(self.database.path());
        let served = record.as_ref().map(|record| record.program.clone());
        let from = served.clone().or_else(|| fallback.map(program_of)).unwrap_or_default();
        if from.version.as_ref().is_some_and(|version| version.has_schema_of(wanted)) {
            return Ok(None);
        }
        let workspace = Workspace::create(self.database.path())?;
        let sqlite = Sqlite::find(self.variable, &workspace, events)?;
        let remembered = record.and_then(|record| record.refusal).filter(|refusal| refusal.version == *wanted);
        let refusal = match (remembered, sqlite) {
            (_, Err(why)) => no_sqlite(wanted, why),
            (Some(refusal), Ok(_)) if fallback.is_some() && self.stands(&refusal) => refusal,
            _ => return Ok(None),
        };
        let to = Program { version: Some(wanted.clone()), fingerprint: None };
        self.refuse(fallback.cloned(), (&from, &to), refusal, terminal).map(Some).map_err(Halt::Failed)
    }

    /// Whether what was found once still holds.
    fn stands(&self, refusal: &Refusal) -> bool {
        match refusal.until {
            Until::Sqlite => false,
            Until::Space(needed) => self.free_space().is_some_and(|free| free < needed),
            Until::Asked => true,
        }
    }

    fn free_space(&self) -> Option<u64> {
        sys::free_space(self.database.path().parent()?)
    }

    /// Makes sure that the database has the schema of what is wanted, and puts
    /// both in place; or goes on with what there is.
    pub fn prepare(&self, mut wanted: Wanted<'_>, events: &mut Events, terminal: &mut Terminal) -> Result<Pair, Halt> {
        let mut to = wanted.program();
        let served = Record::of(self.database.path()).map(|record| record.program);
        let is_same = matches!(&wanted, Wanted::Placed(_)) && served.as_ref().is_some_and(|served| served.is(&to));
        if is_same || !self.database.is_complete() {
            return Ok(Pair::known_as(to, wanted.place(terminal)?));
        }
        wanted.leave_signals();
        let workspace = Workspace::create(self.database.path())?;
        if to.version.is_none() {
            to.version = self.ask_version(wanted.executable(), &workspace, events)?;
        }
        if let Some(served) = served.as_ref().filter(|served| has_schema_of(served, &to)) {
            return Ok(self.exchange(wanted, (served.clone(), to), None, terminal)?);
        }
        let presumed = if served.is_none() { self.presumed(&wanted, &to) } else { None };
        let from = served.or_else(|| wanted.replaced()).unwrap_or_default();
        check_ports(self.config)?;
        let executable = wanted.executable();
        let look = Look { upgrade: self, executable, from: &from, to: &to, workspace: &workspace };
        let migrated = match look.look(events, terminal) {
            Ok(migrated) => migrated,
            Err(Stop::Halted(halt)) => return Err(halt),
            Err(Stop::Refused(refusal)) => {
                // Where nobody can tell it is taken for what was there.
                let is_presumed = presumed.is_some_and(|presumed| has_schema_of(&presumed, &to));
                if refusal.until != Until::Sqlite || !is_presumed {
                    return Ok(self.refuse(wanted.fallback(), (&from, &to), refusal, terminal)?);
                }
                let shown = self.home.display(self.database.path());
                let text = format!("Nobody knows which Temporal {shown} is of, and {}; going on with it.", refusal.why);
                terminal.line(Mark::Warning, &text);
                None
            }
        };
        Ok(self.exchange(wanted, (from, to), migrated.as_deref(), terminal)?)
    }

    /// What served a database without a record, as far as one can tell: what was
    /// in the home before this start.
    fn presumed(&self, wanted: &Wanted<'_>, to: &Program) -> Option<Program> {
        match wanted {
            Wanted::Placed(_) if self.config.executable.value.is_none() => Some(to.clone()),
            Wanted::Placed(_) => None,
            Wanted::Fetched(..) => wanted.replaced(),
        }
    }

    fn exchange(
        &self,
        wanted: Wanted<'_>,
        (from, to): (Program, Program),
        migrated: Option<&Path>,
        terminal: &mut Terminal,
    ) -> Result<Pair> {
        let (installed, fetched, fallback) = match wanted {
            Wanted::Placed(installed) if migrated.is_none() => return Ok(Pair::known_as(to, installed)),
            Wanted::Placed(installed) => (Some(installed), None, None),
            Wanted::Fetched(fetched, fallback) => (None, Some(fetched), fallback),
        };
        let pair = (from.clone(), to.clone());
        let placed = exchange::perform((self.database, self.home), pair, migrated, fetched, terminal)?;
        let Some(installed) = placed.or(installed) else { return Err(Error::new("cannot upgrade: nothing is there")) };
        let pair = Pair::known_as(to, installed);
        Ok(self.on_trial(pair, fallback, migrated.map(|_| &from)))
    }

    /// `migrated`: what the database was of before.
    fn on_trial(&self, pair: Pair, fallback: Option<Installed>, migrated: Option<&Program>) -> Pair {
        let remark = migrated.map_or(String::new(), |from| format!(", the database migrated from {}", name(from)));
        let fallback = fallback.filter(|_| !self.is_asked_for());
        Pair { trial: Some(Trial { fallback }), choice: Choice { remark, ..pair.choice } }
    }

    fn is_asked_for(&self) -> bool {
        self.config.version.source.is_explicit() || self.config.executable.value.is_some()
    }

    /// Goes on with `fallback`, or says that it cannot be.
    fn refuse(
        &self,
        fallback: Option<Installed>,
        (from, to): (&Program, &Program),
        refusal: Refusal,
        terminal: &mut Terminal,
    ) -> Result<Pair> {
        // Another one that is there may be as wrong.
        match fallback.filter(|fallback| !self.is_asked_for() && has_schema_of(&program_of(fallback), from)) {
            Some(fallback) => Ok(fall_back(fallback, refusal, terminal)),
            None => Err(self.cannot_use((from, to), &refusal)),
        }
    }

    fn cannot_use(&self, (from, to): (&Program, &Program), refusal: &Refusal) -> Error {
        let what = match (&to.version, &self.config.executable.value) {
            (Some(version), None) => format!("Temporal {version}"),
            (Some(version), Some(path)) => format!("{} (Temporal {version})", path.display()),
            (None, path) => path.clone().unwrap_or_else(|| self.home.installation.executable()).display().to_string(),
        };
        let stay = match (&self.config.executable, &from.version) {
            (Setting { value: Some(_), source }, _) => format!("leave out {source}, "),
            (_, Some(version)) => format!("stay with --temporal-version {version}, "),
            _ => String::new(),
        };
        let database = self.home.display(self.database.path());
        Error::new(format!("cannot use {what} for a database of {}: {}", name(from), refusal.why)).hint(format!(
            "{}{stay}set STIGMER_HOME to another directory, or move {database} away with its -wal and -shm",
            if refusal.way_out.is_empty() { String::new() } else { format!("{}, ", refusal.way_out) }
        ))
    }

    /// The version that an executable gives itself.
    fn ask_version(
        &self,
        executable: &Path,
        workspace: &Workspace,
        events: &mut Events,
    ) -> Result<Option<Version>, Halt> {
        let (mut command, program) = program::command(self.home, executable)?;
        command.arg("--version");
        let job = Job { command, held: program.directory.as_ref(), input: "", limit: VERSION_LIMIT };
        let told = workspace.run(job, events, &mut || {})?.unwrap_or_default();
        // `temporal version 1.9.1 (Server 1.32.0, UI 2.54.1)`
        Ok(told.split_whitespace().skip_while(|word| *word != "version").nth(1).and_then(Version::parse))
    }
}

impl Trial {
    /// What is to serve where the new pair did not, and is gone.
    pub fn failed(self, undone: &Exchange, result: Result<()>, terminal: &mut Terminal) -> Result<Option<Pair>> {
        let (error, version) = match (result, &undone.to.version) {
            (Err(error), Some(version)) => (error, version.clone()),
            (result, _) => {
                say_undone(undone, "was not completed", terminal);
                return result.map(|()| None);
            }
        };
        match self.fallback {
            Some(fallback) => {
                let why = error.message().to_owned();
                let way_out = format!("--temporal-version {version} tries it again");
                let refusal = Refusal { version, why, way_out, until: Until::Asked };
                Ok(Some(fall_back(fallback, refusal, terminal)))
            }
            None => {
                say_undone(undone, "did not succeed", terminal);
                Err(error)
            }
        }
    }
}

fn fall_back(installed: Installed, refusal: Refusal, terminal: &mut Terminal) -> Pair {
    let Refusal { version, why, way_out, .. } = &refusal;
    let old = program_of(&installed).name();
    terminal.line(Mark::Warning, &format!("Temporal {version} is not used: {why}; going on with {old}"));
    if !way_out.is_empty() {
        terminal.line(Mark::Info, &format!("To upgrade: {way_out}"));
    }
    let pair = Pair::of(installed);
    Pair { choice: Choice { refusal: Some(refusal), ..pair.choice }, ..pair }
}

fn say_undone(exchange: &Exchange, what: &str, terminal: &mut Terminal) {
    let (from, to) = (name(&exchange.from), name(&exchange.to));
    terminal.line(Mark::Warning, &format!("The upgrade to {to} {what}; all is as {from} left it."));
}

fn has_schema_of(one: &Program, other: &Program) -> bool {
    one.is(other) || matches!((&one.version, &other.version), (Some(one), Some(other)) if one.has_schema_of(other))
}

fn name(program: &Program) -> String {
    program.version.as_ref().map_or("an unknown Temporal".into(), |version| format!("Temporal {version}"))
}

fn no_sqlite(wanted: &Version, why: String) -> Refusal {
    Refusal { version: wanted.clone(), why, way_out: INSTALL_SQLITE.into(), until: Until::Sqlite }
}
