//! Makes Temporal's namespaces what they were asked to be, with the installed
//! Temporal CLI as a client of the running server.
//!
//! `start-dev` gives a namespace that it makes 24 hours of retention, and
//! ignores search attributes for one that exists. So each namespace is asked
//! for what it has, and only what is missing is made.

use std::ffi::OsStr;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::clock::after;
use crate::config::namespaces::{DEFAULT_NAMESPACE, Kind, Namespaces, SearchAttribute};
use crate::error::{Error, Result, reason};
use crate::sys::{self, SIGKILL, SIGTERM};

/// Measured: 60 ms, of which the CLI spends 50 on its own start.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Measured: a namespace that was asked for stays unknown for up to a second
/// after it was made.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(50);
/// What would lead the CLI to another Temporal, or around the way to ours.
const FOREIGN_PREFIX: &str = "TEMPORAL_";
const FOREIGN_SUFFIX: &str = "_PROXY";

/// The Temporal CLI as a client of a server of ours.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    pub executable: &'a Path,
    pub address: SocketAddr,
}

/// Sleeps until something happens, at most until the deadline.
pub type Wait<'a, E> = &'a mut dyn FnMut(Instant) -> Result<(), E>;

/// What a namespace has.
#[derive(Debug, PartialEq)]
struct Found {
    /// None: what is said of it cannot be read.
    retention: Option<Duration>,
    attributes: Vec<SearchAttribute>,
}

/// What is to be done about one namespace.
#[derive(Debug, PartialEq)]
enum Step<'a> {
    Retain(Duration),
    Add(&'a SearchAttribute),
}

/// Makes all that is missing. `made` are the namespaces of a database that
/// `start-dev` has just made: nobody has chosen a retention for them yet.
pub fn establish<E: From<Error>>(
    wanted: &Namespaces,
    made: &[String],
    client: Client<'_>,
    wait: Wait<'_, E>,
) -> Result<(), E> {
    let (names, retention) = (&wanted.names.value, wanted.retention.value);
    for name in made {
        take(&Step::Retain(retention), name, client, wait)?;
    }
    for name in names {
        // Made before it is asked for: the server remembers for a while what
        // was not there.
        let is_bare = made.contains(name) || name != DEFAULT_NAMESPACE && create(name, retention, client, wait)?;
        let found = match is_bare {
            true => Found { retention: Some(retention), attributes: Vec::new() },
            false if wanted.ask_for_more_than_names() => describe(name, client, wait)?,
            false => continue,
        };
        for step in steps(wanted, name, &found)? {
            take(&step, name, client, wait)?;
        }
    }
    Ok(())
}

/// What makes the namespace, as it was found, what is wanted.
fn steps<'a>(wanted: &'a Namespaces, name: &str, found: &Found) -> Result<Vec<Step<'a>>> {
    let mut steps = Vec::new();
    for attribute in &wanted.search_attributes {
        match found.attributes.iter().find(|other| other.name == attribute.name) {
            None => steps.push(Step::Add(attribute)),
            Some(other) if other == attribute => {}
            Some(other) => {
                let text =
                    format!("cannot make the search attribute {attribute} in namespace {name}: there is {other}");
                return Err(Error::new(text).hint(format!("use --search-attribute {other}, or another name")));
            }
        }
    }
    let retention = wanted.retention.value;
    if wanted.retention.source.is_explicit() && found.retention != Some(retention) {
        steps.push(Step::Retain(retention));
    }
    Ok(steps)
}

fn take<E: From<Error>>(step: &Step<'_>, name: &str, client: Client<'_>, wait: Wait<'_, E>) -> Result<(), E> {
    let deadline = after(UNKNOWN_LIMIT);
    loop {
        match client.call(name, &step.arguments(), wait)? {
            Ok(_) => return Ok(()),
            // Whoever asked for the namespace before it was made has left it
            // unknown for a while.
            Err(why) if why.contains("is not found") && Instant::now() < deadline => wait(after(RETRY))?,
            Err(why) => {
                let error = Error::new(format!("cannot {}: {}", step.in_words(name), why.trim_end_matches('.')));
                return Err(error.hint(step.hint()).into());
            }
        }
    }
}

impl Step<'_> {
    fn arguments(&self) -> Vec<String> {
        match self {
            Step::Retain(retention) => {
                vec!["namespace".into(), "update".into(), "--retention".into(), seconds(*retention)]
            }
            // One at a time: of several in one call Temporal 1.9.1 makes one.
            Step::Add(SearchAttribute { name, kind }) => {
                ["search-attribute", "create", "--name", name, "--type", kind.name()].map(str::to_owned).to_vec()
            }
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Step::Retain(_) => "check --retention, and see 'stigmer local logs'",
            Step::Add(_) => "check --search-attribute, and see 'stigmer local logs'",
        }
    }

    fn in_words(&self, name: &str) -> String {
        match self {
            Step::Retain(retention) => format!("set the retention of namespace {name} to {}", seconds(*retention)),
            Step::Add(attribute) => format!("make the search attribute {attribute} in namespace {name}"),
        }
    }
}

/// As the CLI takes it.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

/// Makes the namespace; false where it is there already.
fn create<E: From<Error>>(name: &str, retention: Duration, client: Client<'_>, wait: Wait<'_, E>) -> Result<bool, E> {
    let arguments = ["namespace", "create", "--retention", &seconds(retention)];
    match client.call(name, &arguments, wait)? {
        Ok(_) => Ok(true),
        Err(why) if why.contains("already exists") => Ok(false),
        Err(why) => {
            let error = Error::new(format!("cannot make the namespace {name}: {}", why.trim_end_matches('.')));
            Err(error.hint("check the name, given by --namespace or TEMPORAL_NAMESPACE").into())
        }
    }
}

/// What a namespace has.
fn describe<E: From<Error>>(name: &str, client: Client<'_>, wait: Wait<'_, E>) -> Result<Found, E> {
    match client.call(name, &["namespace", "describe", "--output", "json"], wait)? {
        Ok(text) => Ok(parse(&text)),
        Err(why) => {
            let error = Error::new(format!("cannot look at namespace {name}: {}", why.trim_end_matches('.')));
            Err(error.hint("see 'stigmer local logs'").into())
        }
    }
}

/// Reads the CLI's indented JSON, a member a line. What is not understood is
/// taken for missing: the server refuses what would be wrong.
fn parse(json: &str) -> Found {
    let mut found = Found { retention: None, attributes: Vec::new() };
    let mut in_attributes = false;
    for line in json.lines() {
        let Some((name, value)) = line.trim().trim_end_matches(',').split_once(':') else {
            in_attributes = false;
            continue;
        };
        let (name, value) = (name.trim().trim_matches('"'), value.trim().trim_matches('"'));
        if name == "workflowExecutionRetentionTtl" {
            found.retention = value.strip_suffix('s').and_then(|text| text.parse().ok()).map(Duration::from_secs);
        } else if name == "customSearchAttributeAliases" {
            in_attributes = true;
        } else if in_attributes && let Some(kind) = kind_of_column(name) {
            found.attributes.push(SearchAttribute { name: value.into(), kind });
        }
    }
    found
}

/// Temporal keeps the attributes of a namespace in columns such as `Keyword03`.
fn kind_of_column(column: &str) -> Option<Kind> {
    let name = column.trim_end_matches(|c: char| c.is_ascii_digit());
    Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

impl Client<'_> {
    /// One call of the CLI: what it printed, or why it failed.
    fn call<E: From<Error>>(
        &self,
        namespace: &str,
        arguments: &[impl AsRef<OsStr>],
        wait: Wait<'_, E>,
    ) -> Result<Result<String, String>, E> {
        let mut command = self.command(namespace, arguments);
        let child = command.spawn().map_err(|cause| Error::io("execute", self.executable.display(), &cause))?;
        let mut call = Call { child };
        let deadline = after(CALL_LIMIT);
        while !sys::has_ended(call.child.id()) {
            if Instant::now() >= deadline {
                return Ok(Err(format!("no answer within {} s", CALL_LIMIT.as_secs())));
            }
            wait(deadline)?;
        }
        Ok(call.result())
    }

    fn command(&self, namespace: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(self.executable);
        command.arg("operator").args(arguments).arg(format!("--namespace={namespace}"));
        command.arg("--address").arg(self.address.to_string());
        // Neither the user's profiles nor his variables are meant for ours.
        command.args(["--disable-config-file", "--env-file", "/dev/null", "--color", "never"]);
        for (name, _) in std::env::vars_os() {
            let upper = name.to_string_lossy().to_ascii_uppercase();
            if upper.starts_with(FOREIGN_PREFIX) || upper.ends_with(FOREIGN_SUFFIX) {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::prepare_server(&mut command, std::iter::empty(), SIGTERM);
        command
    }
}

/// A child that leaves nothing behind, whatever becomes of us.
struct Call {
    child: Child,
}

impl Call {
    /// Of a child that has ended.
    fn result(&mut self) -> Result<String, String> {
        // What it left in its group would keep the pipes open.
        sys::signal_group(self.child.id(), SIGKILL);
        let (mut output, mut complaint) = (Vec::new(), Vec::new());
        let _ = self.child.stdout.take().map(|mut stream| stream.read_to_end(&mut output));
        let _ = self.child.stderr.take().map(|mut stream| stream.read_to_end(&mut complaint));
        let (output, complaint) = (String::from_utf8_lossy(&output), String::from_utf8_lossy(&complaint));
        match self.child.wait() {
            Ok(status) if status.success() => Ok(output.into_owned()),
            Ok(status) => Err(match complaint.lines().chain(output.lines()).find(|line| !line.trim().is_empty()) {
                Some(line) => line.trim().trim_start_matches("Error: ").to_owned(),
                None => format!("the Temporal CLI ended with {status}"),
            }),
            Err(cause) => Err(reason(&cause)),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            sys::signal_group(self.child.id(), SIGKILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Setting, Source};

    fn attribute(name: &str, kind: Kind) -> SearchAttribute {
        SearchAttribute { name: name.into(), kind }
    }

    fn wanted(search_attributes: Vec<SearchAttribute>, source: Source) -> Namespaces {
        let retention = Setting { value: Duration::from_secs(3600), source };
        let names = Setting { value: vec!["orders".into()], source: Source::Flag("namespace") };
        Namespaces { names, search_attributes, retention }
    }

    /// As Temporal CLI 1.9.1 prints it.
    const DESCRIBED: &str = r#"{
  "namespaceInfo": {
    "name": "orders",
    "id": "ca6617ac-eb6c-4620-8482-c096d44fdfc8",
    "limits": {
      "blobSizeLimitError": "2097152"
    }
  },
  "config": {
    "workflowExecutionRetentionTtl": "604800s",
    "badBinaries": {},
    "customSearchAttributeAliases": {
      "Int02": "Amount",
      "KeywordList01": "Tags"
    }
  },
  "replicationConfig": {
    "Text01": "none of ours"
  }
}"#;

    #[test]
    fn what_a_namespace_has_is_read_from_its_description() {
        let attributes = vec![attribute("Amount", Kind::Int), attribute("Tags", Kind::KeywordList)];
        assert_eq!(parse(DESCRIBED), Found { retention: Some(Duration::from_secs(604_800)), attributes });
        assert_eq!(parse("no json"), Found { retention: None, attributes: Vec::new() });
    }

    #[test]
    fn only_what_is_missing_is_made() {
        let given = || vec![attribute("Amount", Kind::Int), attribute("Country", Kind::Keyword)];
        let hour = Duration::from_secs(3600);
        let by_default = wanted(given(), Source::Default);
        let [amount, country] = by_default.search_attributes.as_slice() else { panic!() };
        let bare = Found { retention: Some(hour), attributes: Vec::new() };
        assert_eq!(steps(&by_default, "orders", &bare).unwrap(), [Step::Add(amount), Step::Add(country)]);
        let found = parse(DESCRIBED);
        assert_eq!(steps(&by_default, "orders", &found).unwrap(), [Step::Add(country)]);
        let asked = wanted(given(), Source::Flag("retention"));
        assert_eq!(steps(&asked, "orders", &found).unwrap(), [Step::Add(country), Step::Retain(hour)]);
        let same = Found { retention: Some(hour), attributes: given() };
        assert_eq!(steps(&asked, "orders", &same).unwrap(), []);
    }

    #[test]
    fn another_type_of_the_same_attribute_is_an_error_that_names_both() {
        let asked = wanted(vec![attribute("Amount", Kind::Text)], Source::Default);
        let error = steps(&asked, "orders", &parse(DESCRIBED)).unwrap_err();
        assert!(error.message().contains("Amount=Text") && error.message().contains("Amount=Int"), "{error}");
    }
}
