//! Reads one flat JSON object, strictly: what `status --json` prints.

use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
}

impl Value {
    pub fn text(&self) -> &str {
        match self {
            Value::Text(text) => text,
            other => panic!("expected a string, not {other:?}"),
        }
    }

    pub fn number(&self) -> u64 {
        match self {
            Value::Number(number) => *number,
            other => panic!("expected a number, not {other:?}"),
        }
    }
}

/// The members of the one object in `text`, which ends with a newline.
#[track_caller]
pub fn object(text: &str) -> BTreeMap<String, Value> {
    let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("no newline at the end of {text:?}"));
    let mut rest = line.strip_prefix('{').unwrap_or_else(|| panic!("no object: {text:?}"));
    let mut members = BTreeMap::new();
    loop {
        let name;
        (name, rest) = string(rest);
        rest = rest.strip_prefix(':').unwrap_or_else(|| panic!("no colon before {rest:?}"));
        let value;
        (value, rest) = self::value(rest);
        assert!(members.insert(name.clone(), value).is_none(), "'{name}' is there twice");
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                assert_eq!(rest, "}", "in {text:?}");
                return members;
            }
        }
    }
}

fn value(text: &str) -> (Value, &str) {
    for (word, value) in [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))] {
        if let Some(rest) = text.strip_prefix(word) {
            return (value, rest);
        }
    }
    if text.starts_with('"') {
        let (text, rest) = string(text);
        return (Value::Text(text), rest);
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().unwrap_or_else(|_| panic!("no value: {text:?}"));
    (Value::Number(number), &text[end..])
}

fn string(text: &str) -> (String, &str) {
    let inside = text.strip_prefix('"').unwrap_or_else(|| panic!("no string: {text:?}"));
    let mut value = String::new();
    let mut characters = inside.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &inside[at + 1..]),
            '\\' => match characters.next() {
                Some((at, 'u')) => {
                    let code = u32::from_str_radix(&inside[at + 1..at + 5], 16).unwrap();
                    value.push(char::from_u32(code).unwrap());
                    characters.nth(3);
                }
                Some((_, escaped @ ('"' | '\\' | '/'))) => value.push(escaped),
                other => panic!("unknown escape {other:?} in {text:?}"),
            },
            control if control < ' ' => panic!("a bare control character in {text:?}"),
            other => value.push(other),
        }
    }
    panic!("a string without end: {text:?}")
}
