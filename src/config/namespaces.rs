//! What clients shall find in Temporal: namespaces, their search attributes,
//! and how long they keep closed workflows.

use std::fmt;
use std::time::Duration;

use super::Setting;

/// Temporal itself makes this one, at every start.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Temporal refuses less.
const MIN_RETENTION: Duration = Duration::from_secs(3600);
/// A hundred years; Temporal's own limit lies beyond.
const MAX_RETENTION: Duration = Duration::from_secs(36_500 * 86_400);
const MAX_NAME: usize = 255;

#[derive(Debug, Clone, PartialEq)]
pub struct Namespaces {
    /// Never empty; the first is the one that clients are told.
    pub names: Setting<Vec<String>>,
    /// They shall be in each of these.
    pub search_attributes: Vec<SearchAttribute>,
    /// By default of the namespaces that are made, otherwise of all.
    pub retention: Setting<Duration>,
}

impl Namespaces {
    pub fn first(&self) -> &str {
        self.names.value.first().map_or(DEFAULT_NAMESPACE, String::as_str)
    }

    /// Whether Temporal alone would not see to it.
    pub fn ask_for_something(&self) -> bool {
        self.names.value.iter().any(|name| name != DEFAULT_NAMESPACE) || self.ask_for_more_than_names()
    }

    /// Whether it matters what a namespace has that is there.
    pub fn ask_for_more_than_names(&self) -> bool {
        !self.search_attributes.is_empty() || self.retention.source.is_explicit()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchAttribute {
    pub name: String,
    pub kind: Kind,
}

impl fmt::Display for SearchAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.kind.name())
    }
}

/// The type of a search attribute, by the numbers of Temporal's `IndexedValueType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text = 1,
    Keyword,
    Int,
    Double,
    Bool,
    Datetime,
    KeywordList,
}

impl Kind {
    pub const ALL: [Kind; 7] =
        [Kind::Text, Kind::Keyword, Kind::Int, Kind::Double, Kind::Bool, Kind::Datetime, Kind::KeywordList];

    /// As Temporal spells it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text => "Text",
            Kind::Keyword => "Keyword",
            Kind::Int => "Int",
            Kind::Double => "Double",
            Kind::Bool => "Bool",
            Kind::Datetime => "Datetime",
            Kind::KeywordList => "KeywordList",
        }
    }
}

/// A name that Temporal takes and its command line cannot misunderstand.
pub fn parse_namespace(text: &str) -> Result<String, String> {
    match text.is_empty() || text.len() > MAX_NAME || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err(format!("the name of a namespace, without spaces and of up to {MAX_NAME} bytes")),
        false => Ok(text.into()),
    }
}

pub fn parse_search_attribute(text: &str) -> Result<SearchAttribute, String> {
    let wanted = || {
        let kinds = Kind::ALL.map(Kind::name).join(", ");
        format!("NAME=TYPE with one of the types {kinds}")
    };
    let (name, kind) = text.split_once('=').ok_or_else(wanted)?;
    let is_plain = |c: char| c.is_alphanumeric() || "_-. ".contains(c);
    let kind =
        Kind::ALL.into_iter().find(|candidate| candidate.name().eq_ignore_ascii_case(kind)).ok_or_else(wanted)?;
    match name.starts_with(char::is_alphabetic) && name.chars().all(is_plain) && name.len() <= MAX_NAME {
        true => Ok(SearchAttribute { name: name.into(), kind }),
        false => Err(wanted()),
    }
}

/// `36h`, `30d`, `1d12h`.
pub fn parse_retention(text: &str) -> Result<Duration, String> {
    let wanted = || "a duration of 1h or more, such as 36h or 30d".to_owned();
    let mut seconds = 0u64;
    let mut rest = text;
    while let Some(end) = rest.find(|c: char| !c.is_ascii_digit()) {
        let unit = match rest.as_bytes()[end] {
            b'd' => 86_400,
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return Err(wanted()),
        };
        let count: u64 = rest[..end].parse().map_err(|_| wanted())?;
        seconds = count.checked_mul(unit).and_then(|part| seconds.checked_add(part)).ok_or_else(wanted)?;
        rest = &rest[end + 1..];
    }
    let duration = Duration::from_secs(seconds);
    match rest.is_empty() && (MIN_RETENTION..=MAX_RETENTION).contains(&duration) {
        true => Ok(duration),
        false => Err(wanted()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retention_is_read_in_days_hours_minutes_and_seconds() {
        for (text, hours) in [("7d", 168), ("36h", 36), ("30d", 720), ("1d12h", 36), ("60m", 1), ("3600s", 1)] {
            assert_eq!(parse_retention(text), Ok(Duration::from_secs(hours * 3600)), "{text}");
        }
        for text in
            ["", "7", "d", "59m", "0d", "-1d", "1.5d", "7 d", "1w", "7d1", "7D", "99999999999999999999d", "36501d"]
        {
            assert!(parse_retention(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_search_attribute_is_a_name_and_a_type_in_any_case() {
        let parsed = parse_search_attribute("CustomerId=keywordlist").unwrap();
        assert_eq!(parsed, SearchAttribute { name: "CustomerId".into(), kind: Kind::KeywordList });
        assert_eq!(parsed.to_string(), "CustomerId=KeywordList");
        for text in ["", "CustomerId", "=Int", "A=", "A=Integer", "A=Int=1", "-A=Int", "A\n=Int", "\"=Int"] {
            assert!(parse_search_attribute(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_namespace_has_no_spaces() {
        assert_eq!(parse_namespace("orders-eu_1.x"), Ok("orders-eu_1.x".into()));
        for text in ["", " ", "a b", "a\n", &"x".repeat(256)] {
            assert!(parse_namespace(text).is_err(), "{text}");
        }
    }
}
