//! The few fields of Protocol Buffers that are written and asked for, and the
//! numbers of any length that HPACK writes the same way.

/// Wire types (Protocol Buffers, "Encoding").
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A message that is being written, field by field.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn number(self, field: u64, value: u64) -> Message {
        self.head(field, VARINT).varint(value)
    }

    pub fn text(self, field: u64, text: &str) -> Message {
        self.bytes(field, text.as_bytes())
    }

    pub fn message(self, field: u64, part: &Message) -> Message {
        self.bytes(field, &part.0)
    }

    fn bytes(self, field: u64, bytes: &[u8]) -> Message {
        let mut message = self.head(field, BYTES).varint(bytes.len() as u64);
        message.0.extend_from_slice(bytes);
        message
    }

    fn head(self, field: u64, wire_type: u64) -> Message {
        self.varint(field << 3 | wire_type)
    }

    fn varint(mut self, value: u64) -> Message {
        push_varint(&mut self.0, value);
        self
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Appends a number by 7 bits, the lowest first.
pub fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'m> {
    Number(u64),
    /// A text, or a message.
    Bytes(&'m [u8]),
}

/// The fields of a message in their order, up to the first that is not whole;
/// without those of a fixed width, which nobody asks for.
pub fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    let next = move || {
        let head = varint(&mut message)?;
        let value = match head & 7 {
            VARINT => Some(Value::Number(varint(&mut message)?)),
            BYTES => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Some(Value::Bytes(message.split_off(..length)?))
            }
            FIXED64 => message.split_off(..8).map(|_| None)?,
            FIXED32 => message.split_off(..4).map(|_| None)?,
            _ => return None,
        };
        Some(value.map(|value| (head >> 3, value)))
    };
    std::iter::from_fn(next).flatten()
}

/// The number in a field; None where it has its default, which is left out.
pub fn number(message: &[u8], wanted: u64) -> Option<u64> {
    fields(message).find_map(|(field, value)| match value {
        Value::Number(number) if field == wanted => Some(number),
        _ => None,
    })
}

/// The text or message in a field; None where it is left out.
pub fn bytes(message: &[u8], wanted: u64) -> Option<&[u8]> {
    fields(message).find_map(|(field, value)| match value {
        Value::Bytes(bytes) if field == wanted => Some(bytes),
        _ => None,
    })
}

/// Takes a number off the front; None where it is incomplete or has no end.
pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let part = Message::default().number(1, 604_800);
        for text in ["", "default", &"n".repeat(127), &"n".repeat(128), &"n".repeat(1000)] {
            let message = Message::default().text(1, text).message(4, &part).number(16, u64::MAX).into_bytes();
            assert_eq!(bytes(&message, 1), Some(text.as_bytes()));
            assert_eq!(bytes(&message, 4).and_then(|part| number(part, 1)), Some(604_800));
            assert_eq!((number(&message, 16), number(&message, 4), bytes(&message, 16)), (Some(u64::MAX), None, None));
        }
    }

    #[test]
    fn fields_of_a_fixed_width_are_passed_over_and_damage_is_the_end() {
        let fixed = [&[0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4][..], &[8, 1]].concat();
        assert_eq!(fields(&fixed).collect::<Vec<_>>(), [(1, Value::Number(1))]);
        for broken in [
            &[][..],
            &[8],
            &[8, 255],
            &[10, 5, b'x'],
            &[0x09, 1],
            &[11],
            &[10, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert_eq!(fields(broken).next(), None, "{broken:?}");
        }
    }
}
