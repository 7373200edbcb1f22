//! Frames of HTTP/2 (RFC 9113, 4 and 6), as far as one client with one call
//! at a time meets them.

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// What a frame may hold when neither side has asked for more.
pub const MAX_PAYLOAD: usize = 16_384;
const HEAD: usize = 9;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl Frame<'_> {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn push_to(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&(self.payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(&[self.kind, self.flags]);
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(self.payload);
    }

    /// Whether this GOAWAY lets the call `stream` end: the server takes no more
    /// after it, and nothing is wrong.
    pub fn lets_end(&self, stream: u32) -> bool {
        let number = |at: usize| Some(u32::from_be_bytes(*self.payload.get(at..)?.first_chunk()?));
        number(0).is_some_and(|last| last & 0x7fff_ffff >= stream) && number(4) == Some(0)
    }

    /// What a DATA or HEADERS frame carries, without padding and priority; None
    /// where these do not fit into it.
    pub fn content(&self) -> Option<&[u8]> {
        let (mut content, mut padding) = (self.payload, 0);
        if self.has(PADDED) {
            padding = usize::from(*content.split_off_first()?);
        }
        if self.kind == HEADERS && self.has(PRIORITY) {
            content.split_off(..5)?;
        }
        content.get(..content.len().checked_sub(padding)?)
    }
}

/// The first frame of `bytes`, and its length; None while it is incomplete.
/// The error is a length that was never agreed upon.
pub fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, ()> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else { return Ok(None) };
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    if length > MAX_PAYLOAD {
        return Err(());
    }
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    let frame = |payload| Frame { kind: head[3], flags: head[4], stream, payload };
    Ok(rest.get(..length).map(|payload| (frame(payload), HEAD + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_written_and_not_before_it_is_whole() {
        let frame = Frame { kind: DATA, flags: END_STREAM, stream: 5, payload: b"abc" };
        let mut bytes = Vec::new();
        frame.push_to(&mut bytes);
        for cut in 0..bytes.len() {
            assert_eq!(first(&bytes[..cut]), Ok(None), "{cut}");
        }
        bytes.push(9);
        assert_eq!(first(&bytes), Ok(Some((frame, bytes.len() - 1))));
        assert_eq!(first(&[0, 0x40, 1, 0, 0, 0, 0, 0, 0]), Err(()));
    }

    #[test]
    fn padding_and_priority_are_left_out() {
        let content = |kind, flags, payload| Frame { kind, flags, stream: 1, payload }.content().map(<[u8]>::to_vec);
        assert_eq!(content(DATA, PADDED, b"\x02abcXX"), Some(b"abc".to_vec()));
        assert_eq!(content(HEADERS, PRIORITY, b"\0\0\0\0\x10abc"), Some(b"abc".to_vec()));
        assert_eq!(content(HEADERS, PADDED | PRIORITY, b"\x01\0\0\0\0\x10abcX"), Some(b"abc".to_vec()));
        assert_eq!(content(DATA, PADDED, b"\x03ab"), None);
        assert_eq!(content(DATA, PADDED, b""), None);
        assert_eq!(content(HEADERS, PRIORITY, b"abc"), None);
    }
}
