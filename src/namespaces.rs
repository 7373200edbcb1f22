//! Makes Temporal's namespaces what they were asked to be, as a client of the
//! running server.
//!
//! `start-dev` gives a namespace that it makes 24 hours of retention, and
//! ignores search attributes for one that exists. So each namespace is asked
//! for what it has, and only what is missing is made. By gRPC and not by the
//! Temporal CLI, which takes 60 ms for a call where this takes 2.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::after;
use crate::config::namespaces::{DEFAULT_NAMESPACE, Kind, Namespaces, SearchAttribute};
use crate::error::{Error, Result};
use crate::events::{Events, Halt};
use crate::grpc::proto::{self, Message, Value};
use crate::grpc::{Client, Fault, Patience, Request};
use crate::health;

const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Measured: a namespace that was asked for stays unknown for up to a second
/// after it was made.
const UNKNOWN_LIMIT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(20);

const REGISTER: &str = "/temporal.api.workflowservice.v1.WorkflowService/RegisterNamespace";
const DESCRIBE: &str = "/temporal.api.workflowservice.v1.WorkflowService/DescribeNamespace";
const UPDATE: &str = "/temporal.api.workflowservice.v1.WorkflowService/UpdateNamespace";
const ADD_SEARCH_ATTRIBUTES: &str = "/temporal.api.operatorservice.v1.OperatorService/AddSearchAttributes";

/// Statuses of gRPC.
const OK: u32 = 0;
const NOT_FOUND: u32 = 5;
const ALREADY_EXISTS: u32 = 6;

/// Whoever waits for the answers, and what else concerns him meanwhile.
pub trait Wait {
    type Halt: From<Error>;

    /// Readable when `wait` would return at once.
    fn interrupt(&self) -> Option<BorrowedFd<'_>>;

    /// Sleeps until something happens, at most until the deadline.
    fn wait(&mut self, deadline: Instant) -> Result<(), Self::Halt>;
}

impl Wait for Events {
    type Halt = Halt;

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        Some(self.pending())
    }

    fn wait(&mut self, deadline: Instant) -> Result<(), Halt> {
        Events::wait(self, Some(deadline)).map(drop)
    }
}

/// Of a command that nothing else concerns.
pub struct Undisturbed;

impl Wait for Undisturbed {
    type Halt = Error;

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn wait(&mut self, deadline: Instant) -> Result<()> {
        thread::sleep(deadline.saturating_duration_since(Instant::now()));
        Ok(())
    }
}

/// What a namespace has.
#[derive(Debug, PartialEq)]
struct Found {
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
pub fn establish<W: Wait>(
    wanted: &Namespaces,
    made: &[String],
    address: SocketAddr,
    waiting: &mut W,
) -> Result<(), W::Halt> {
    let (names, retention) = (&wanted.names.value, wanted.retention.value);
    for name in made {
        take(&Step::Retain(retention), name, address, waiting)?;
    }
    for name in names {
        // Made before it is asked for: the server remembers for a while what
        // was not there.
        let is_bare = made.contains(name) || name != DEFAULT_NAMESPACE && create(name, retention, address, waiting)?;
        let found = match is_bare {
            true => Found { retention: Some(retention), attributes: Vec::new() },
            false if wanted.ask_for_more_than_names() => describe(name, address, waiting)?,
            false => continue,
        };
        for step in steps(wanted, name, &found)? {
            take(&step, name, address, waiting)?;
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

fn take<W: Wait>(step: &Step<'_>, name: &str, address: SocketAddr, waiting: &mut W) -> Result<(), W::Halt> {
    let (path, message) = step.request(name);
    match call_known(address, path, message, waiting)? {
        Ok(_) => Ok(()),
        Err(refusal) => {
            let error = Error::new(format!("cannot {}: {}", step.in_words(name), refusal.why));
            Err(error.hint(step.hint()).into())
        }
    }
}

impl Step<'_> {
    fn request(&self, name: &str) -> (&'static str, Message) {
        match self {
            // UpdateNamespaceRequest { namespace = 1, config = 3 { workflow_execution_retention_ttl = 1 } }
            Step::Retain(retention) => {
                let config = Message::default().message(1, &seconds(*retention));
                (UPDATE, Message::default().text(1, name).message(3, &config))
            }
            // AddSearchAttributesRequest { search_attributes = 1 (a map), namespace = 2 }; one at a
            // time: of several in one call Temporal 1.9.1 makes one.
            Step::Add(SearchAttribute { name: attribute, kind }) => {
                let entry = Message::default().text(1, attribute).number(2, *kind as u64);
                (ADD_SEARCH_ATTRIBUTES, Message::default().message(1, &entry).text(2, name))
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
            Step::Retain(retention) => format!("set the retention of namespace {name} to {}s", retention.as_secs()),
            Step::Add(attribute) => format!("make the search attribute {attribute} in namespace {name}"),
        }
    }
}

/// `google.protobuf.Duration { seconds = 1 }`
fn seconds(duration: Duration) -> Message {
    Message::default().number(1, duration.as_secs())
}

/// Makes the namespace; false where it is there already.
fn create<W: Wait>(name: &str, retention: Duration, address: SocketAddr, waiting: &mut W) -> Result<bool, W::Halt> {
    // RegisterNamespaceRequest { namespace = 1, workflow_execution_retention_period = 4 }
    let message = Message::default().text(1, name).message(4, &seconds(retention));
    match call(address, REGISTER, &message.into_bytes(), waiting)? {
        Ok(_) => Ok(true),
        Err(Refusal { code: Some(ALREADY_EXISTS), .. }) => Ok(false),
        Err(refusal) => {
            let error = Error::new(format!("cannot make the namespace {name}: {}", refusal.why));
            Err(error.hint("check the name, given by --namespace or TEMPORAL_NAMESPACE").into())
        }
    }
}

/// What a namespace has.
fn describe<W: Wait>(name: &str, address: SocketAddr, waiting: &mut W) -> Result<Found, W::Halt> {
    // DescribeNamespaceRequest { namespace = 1 }
    match call_known(address, DESCRIBE, Message::default().text(1, name), waiting)? {
        Ok(response) => Ok(found_in(&response)),
        Err(refusal) => {
            let error = Error::new(format!("cannot look at namespace {name}: {}", refusal.why));
            Err(error.hint("see 'stigmer local logs'").into())
        }
    }
}

/// Of a `DescribeNamespaceResponse { config = 2 { workflow_execution_retention_ttl = 1,
/// custom_search_attribute_aliases = 7 (a map) } }`. What is not understood is taken
/// for missing: the server refuses what would be wrong.
fn found_in(response: &[u8]) -> Found {
    let config = proto::bytes(response, 2).unwrap_or_default();
    let retention = proto::bytes(config, 1).map(|ttl| Duration::from_secs(proto::number(ttl, 1).unwrap_or(0)));
    let attribute = |(field, value): (u64, Value<'_>)| {
        let Value::Bytes(entry) = value else { return None };
        let text = |part| str::from_utf8(proto::bytes(entry, part)?).ok();
        let kind = kind_of_column(text(1).filter(|_| field == 7)?)?;
        Some(SearchAttribute { name: text(2)?.to_owned(), kind })
    };
    Found { retention, attributes: proto::fields(config).filter_map(attribute).collect() }
}

/// Temporal keeps the attributes of a namespace in columns such as `Keyword03`.
fn kind_of_column(column: &str) -> Option<Kind> {
    let name = column.trim_end_matches(|c: char| c.is_ascii_digit());
    Kind::ALL.into_iter().find(|kind| kind.name() == name)
}

/// Why a call was not answered with what it asked for.
struct Refusal {
    /// The status of gRPC, where one came.
    code: Option<u32>,
    why: String,
}

/// A call about a namespace that is there: whoever asked for it before it was
/// made has left it unknown for a while.
fn call_known<W: Wait>(
    address: SocketAddr,
    path: &str,
    message: Message,
    waiting: &mut W,
) -> Result<Result<Vec<u8>, Refusal>, W::Halt> {
    let (message, deadline) = (message.into_bytes(), after(UNKNOWN_LIMIT));
    loop {
        match call(address, path, &message, waiting)? {
            Err(Refusal { code: Some(NOT_FOUND), .. }) if Instant::now() < deadline => waiting.wait(after(RETRY))?,
            answer => return Ok(answer),
        }
    }
}

/// One call; the response. What interrupts it is dealt with, and it is made
/// again: each of these calls may be.
fn call<W: Wait>(
    address: SocketAddr,
    path: &str,
    message: &[u8],
    waiting: &mut W,
) -> Result<Result<Vec<u8>, Refusal>, W::Halt> {
    let request = Request { scheme: "http", authority: "localhost", path, metadata: &[], message };
    let deadline = after(CALL_LIMIT);
    loop {
        let mut stream = match health::connect(address, deadline) {
            Ok(stream) => stream,
            Err(why) => return Ok(Err(Refusal { code: None, why })),
        };
        let patience = Patience { deadline, interrupt: waiting.interrupt() };
        return Ok(match Client::new(&mut stream).call(&request, patience) {
            Ok(reply) if reply.code == Some(OK) => Ok(reply.message),
            Ok(reply) => Err(Refusal { code: reply.code, why: reply.text.trim_end_matches('.').to_owned() }),
            Err(Fault::Interrupted) => {
                waiting.wait(Instant::now())?;
                continue;
            }
            Err(Fault::Silent) => {
                Err(Refusal { code: None, why: format!("no answer within {} s", CALL_LIMIT.as_secs()) })
            }
            Err(_) => Err(Refusal { code: None, why: "it ended the call without an answer".into() }),
        });
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

    /// As Temporal answers, whose field 1 describes the namespace itself.
    fn described() -> Vec<u8> {
        let alias = |column: &str, name: &str| Message::default().text(1, column).text(2, name);
        let config = Message::default()
            .message(1, &seconds(Duration::from_secs(604_800)))
            .message(2, &alias("Text01", "none of ours"))
            .message(7, &alias("Int02", "Amount"))
            .message(7, &alias("KeywordList01", "Tags"))
            .message(7, &alias("Unheard01", "Of"));
        let info = Message::default().text(1, "orders").message(7, &alias("Text01", "nor this"));
        Message::default().message(1, &info).message(2, &config).into_bytes()
    }

    #[test]
    fn what_a_namespace_has_is_read_from_its_description() {
        let attributes = vec![attribute("Amount", Kind::Int), attribute("Tags", Kind::KeywordList)];
        assert_eq!(found_in(&described()), Found { retention: Some(Duration::from_secs(604_800)), attributes });
        assert_eq!(found_in(b"nothing of ours"), Found { retention: None, attributes: Vec::new() });
    }

    #[test]
    fn only_what_is_missing_is_made() {
        let given = || vec![attribute("Amount", Kind::Int), attribute("Country", Kind::Keyword)];
        let hour = Duration::from_secs(3600);
        let by_default = wanted(given(), Source::Default);
        let [amount, country] = by_default.search_attributes.as_slice() else { panic!() };
        let bare = Found { retention: Some(hour), attributes: Vec::new() };
        assert_eq!(steps(&by_default, "orders", &bare).unwrap(), [Step::Add(amount), Step::Add(country)]);
        let found = found_in(&described());
        assert_eq!(steps(&by_default, "orders", &found).unwrap(), [Step::Add(country)]);
        let asked = wanted(given(), Source::Flag("retention"));
        assert_eq!(steps(&asked, "orders", &found).unwrap(), [Step::Add(country), Step::Retain(hour)]);
        let same = Found { retention: Some(hour), attributes: given() };
        assert_eq!(steps(&asked, "orders", &same).unwrap(), []);
    }

    #[test]
    fn another_type_of_the_same_attribute_is_an_error_that_names_both() {
        let asked = wanted(vec![attribute("Amount", Kind::Text)], Source::Default);
        let error = steps(&asked, "orders", &found_in(&described())).unwrap_err();
        assert!(error.message().contains("Amount=Text") && error.message().contains("Amount=Int"), "{error}");
    }
}
