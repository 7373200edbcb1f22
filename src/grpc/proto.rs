//! The few fields of Protocol Buffers that are asked for, and the numbers of
//! any length that HPACK writes the same way.

/// A message with one text, as its field 1.
pub fn text_message(text: &str) -> Vec<u8> {
    let mut message = vec![0x0a];
    push_varint(&mut message, text.len());
    message.extend_from_slice(text.as_bytes());
    message
}

/// Appends a number by 7 bits, the lowest first.
pub fn push_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Field 1 of a message: a number, or a text.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    Number(u64),
    Text(String),
}

/// Field 1 where it stands first, as every writer puts it; None where it has
/// its default, which is left out, or the message is another one.
pub fn first(mut message: &[u8]) -> Option<First> {
    match message.split_off_first()? {
        0x08 => Some(First::Number(varint(&mut message)?)),
        0x0a => {
            let length = usize::try_from(varint(&mut message)?).ok()?;
            let text = message.get(..length)?;
            Some(First::Text(String::from_utf8_lossy(text).into_owned()))
        }
        _ => None,
    }
}

/// Takes a number off the front; None where it is incomplete or has no end.
pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
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
    fn field_1_is_read_as_written() {
        for text in ["", "default", &"n".repeat(127), &"n".repeat(128), &"n".repeat(1000)] {
            assert_eq!(first(&text_message(text)), Some(First::Text(text.into())));
        }
        assert_eq!(first(&[8, 1]), Some(First::Number(1)));
        for other in
            [&[][..], &[8], &[8, 255], &[10, 5, b'x'], &[18, 0], &[10, 255, 255, 255, 255, 255, 255, 255, 255, 255]]
        {
            assert_eq!(first(other), None, "{other:?}");
        }
    }
}
