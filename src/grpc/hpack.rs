//! Headers of HTTP/2 (RFC 7541): written plainly, read in every form that a
//! server may choose, Huffman and the dynamic table included.

use std::collections::VecDeque;

use super::proto;

pub type Field = (String, String);

/// What the dynamic table may hold, unless a peer that we send no other
/// setting wants less (RFC 9113, 6.5.2).
const MAX_TABLE: usize = 4096;
/// A byte can stand for a whole entry, so what a block unfolds to has a limit.
const MAX_FIELDS: usize = 64 << 10;
/// What an entry counts beside its texts (RFC 7541, 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Appends a field as a literal that nobody on the way may put into a table,
/// because it may be a secret (RFC 7541, 6.2.3 and 7.1.3).
pub fn push(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0x10);
    for text in [name, value] {
        // An integer of 7 bits, and what these do not hold (5.1).
        match text.len().checked_sub(127) {
            None => block.push(text.len() as u8),
            Some(rest) => {
                block.push(127);
                proto::push_varint(block, rest as u64);
            }
        }
        block.extend_from_slice(text.as_bytes());
    }
}

/// Reads the header blocks of one connection, in their order.
#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    dynamic: VecDeque<Field>,
    limit: usize,
}

impl Decoder {
    pub fn new() -> Decoder {
        Decoder { dynamic: VecDeque::new(), limit: MAX_TABLE }
    }

    /// The fields of a whole block; None where it breaks the rules.
    pub fn decode(&mut self, mut block: &[u8]) -> Option<Vec<Field>> {
        let (mut fields, mut size) = (Vec::new(), 0);
        while let Some(&first) = block.first() {
            let field = match first {
                128.. => self.entry(integer(&mut block, 7)?)?,
                64.. => {
                    let field = self.literal(&mut block, 6)?;
                    self.dynamic.push_front(field.clone());
                    self.evict();
                    field
                }
                32.. => {
                    self.limit = Some(integer(&mut block, 5)?).filter(|limit| *limit <= MAX_TABLE)?;
                    self.evict();
                    continue;
                }
                _ => self.literal(&mut block, 4)?,
            };
            size = Some(size + field.0.len() + field.1.len()).filter(|size| *size <= MAX_FIELDS)?;
            fields.push(field);
        }
        Some(fields)
    }

    /// A field whose name may stand in a table.
    fn literal(&self, block: &mut &[u8], bits: u32) -> Option<Field> {
        let name = match integer(block, bits)? {
            0 => text(block)?,
            index => self.entry(index)?.0,
        };
        Some((name, text(block)?))
    }

    fn entry(&self, index: usize) -> Option<Field> {
        let index = index.checked_sub(1)?;
        match STATIC.split('|').nth(index) {
            Some(entry) => {
                let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
                Some((name.into(), value.into()))
            }
            None => self.dynamic.get(index.checked_sub(STATIC_ENTRIES)?).cloned(),
        }
    }

    fn evict(&mut self) {
        let size = |(name, value): &Field| name.len() + value.len() + ENTRY_OVERHEAD;
        while self.dynamic.iter().map(size).sum::<usize>() > self.limit {
            self.dynamic.pop_back();
        }
    }
}

/// An integer in the last `bits` of the first byte and those behind it.
fn integer(block: &mut &[u8], bits: u32) -> Option<usize> {
    let mask = (1 << bits) - 1;
    match usize::from(*block.split_off_first()? & mask) {
        value if value < usize::from(mask) => Some(value),
        value => value.checked_add(usize::try_from(proto::varint(block)?).ok()?),
    }
}

fn text(block: &mut &[u8]) -> Option<String> {
    let is_huffman = block.first()? & 128 != 0;
    let bytes = integer(block, 7).and_then(|length| block.split_off(..length))?;
    let plain = if is_huffman { huffman(bytes)? } else { bytes.to_vec() };
    Some(String::from_utf8_lossy(&plain).into_owned())
}

fn huffman(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut text, mut code, mut bits) = (Vec::new(), 0, 0);
    for byte in bytes {
        for shift in (0..8).rev() {
            (code, bits) = (code << 1 | u32::from(byte >> shift & 1), bits + 1);
            if let Some(symbol) = symbol(code, bits) {
                text.push(symbol);
                (code, bits) = (0, 0);
            } else if bits == MAX_BITS {
                return None;
            }
        }
    }
    // Filled up with ones to the end of the byte, and no further (5.2).
    (bits < 8 && code == (1 << bits) - 1).then_some(text)
}

/// The code is canonical: within a length the codes count up, and the first of
/// a length follows from the last of the one before.
fn symbol(code: u32, bits: u32) -> Option<u8> {
    let (mut next, mut last) = (0, 0);
    for (length, symbols) in HUFFMAN {
        next <<= length - last;
        if *length == bits {
            return symbols.get(code.checked_sub(next)? as usize).copied();
        }
        (next, last) = (next + symbols.len() as u32, *length);
    }
    None
}

/// The end of the string (EOS), which no string may hold, is the last code.
const MAX_BITS: u32 = 30;

/// Appendix B: bits, and the symbols that have a code so long.
#[rustfmt::skip]
static HUFFMAN: &[(u32, &[u8])] = &[
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (23, b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef"),
    (24, b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (28, b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9"),
    (30, b"\n\r\x16"),
];

const STATIC_ENTRIES: usize = 61;

/// Appendix A.
const STATIC: &str = "\
:authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|\
:status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|\
accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|\
authorization|cache-control|content-disposition|content-encoding|content-language|content-length|\
content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|\
if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|\
proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|\
strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate";

/// For the fuzz target of `tests/fuzz`: any bytes are read, within bounds, and
/// what was read can be written and read again.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let mut decoder = Decoder::new();
    // Three blocks on one connection.
    for part in data.chunks(data.len() / 3 + 1) {
        let Some(fields) = decoder.decode(part) else { return };
        assert!(decoder.dynamic.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= MAX_TABLE);
        let mut block = Vec::new();
        fields.iter().for_each(|(name, value)| push(&mut block, name, value));
        assert_eq!(Decoder::new().decode(&block), Some(fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn fields(text: &str) -> Vec<Field> {
        let field = |line: &str| line.trim().split_once(": ").map(|(name, value)| (name.into(), value.into()));
        text.lines().filter_map(field).collect()
    }

    #[test]
    fn the_static_table_is_whole() {
        assert_eq!(STATIC.split('|').count(), STATIC_ENTRIES);
        let symbols: usize = HUFFMAN.iter().map(|(_, symbols)| symbols.len()).sum();
        assert_eq!(symbols, 256);
        // With EOS the codes fill the tree: none is left over.
        let filled: u64 = HUFFMAN.iter().map(|(bits, symbols)| (symbols.len() as u64) << (MAX_BITS - bits)).sum();
        assert_eq!(filled + 1, 1 << MAX_BITS);
    }

    /// RFC 7541, C.2.1 to C.2.4.
    #[test]
    fn single_fields_are_read() {
        for (block, expected, kept) in [
            ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", "custom-key: custom-header", 1),
            ("040c 2f73 616d 706c 652f 7061 7468", ":path: /sample/path", 0),
            ("1008 7061 7373 776f 7264 0673 6563 7265 74", "password: secret", 0),
            ("82", ":method: GET", 0),
        ] {
            let mut decoder = Decoder::new();
            assert_eq!(decoder.decode(&bytes(block)), Some(fields(expected)));
            assert_eq!(decoder.dynamic.len(), kept);
        }
    }

    const REQUESTS: [&str; 3] = [
        ":method: GET
         :scheme: http
         :path: /
         :authority: www.example.com",
        ":method: GET
         :scheme: http
         :path: /
         :authority: www.example.com
         cache-control: no-cache",
        ":method: GET
         :scheme: https
         :path: /index.html
         :authority: www.example.com
         custom-key: custom-value",
    ];

    /// C.3 and C.4: three requests on one connection, plain and Huffman.
    #[test]
    fn requests_on_one_connection_are_read() {
        let plain = [
            "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "8286 84be 5808 6e6f 2d63 6163 6865",
            "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        ];
        let huffman = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        for blocks in [plain, huffman] {
            let mut decoder = Decoder::new();
            for (block, expected) in blocks.iter().zip(REQUESTS) {
                assert_eq!(decoder.decode(&bytes(block)), Some(fields(expected)), "{block}");
            }
            assert_eq!(decoder.dynamic.len(), 3);
        }
    }

    const RESPONSES: [&str; 3] = [
        ":status: 302
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:21 GMT
         location: https://www.example.com",
        ":status: 307
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:21 GMT
         location: https://www.example.com",
        ":status: 200
         cache-control: private
         date: Mon, 21 Oct 2013 20:13:22 GMT
         location: https://www.example.com
         content-encoding: gzip
         set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ];

    /// C.5 and C.6: with a table of 256 bytes, so that entries are evicted.
    #[test]
    fn responses_with_evictions_are_read() {
        let plain = [
            "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
             2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
            "4803 3330 37c1 c0bf",
            "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0
             5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745
             4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
        ];
        let huffman = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
             2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7
             821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed
             4ee5 b106 3d50 07",
        ];
        for blocks in [plain, huffman] {
            let mut decoder = Decoder::new();
            assert_eq!(decoder.decode(&bytes("3fe1 01")), Some(Vec::new()));
            assert_eq!(decoder.limit, 256);
            for (block, expected) in blocks.iter().zip(RESPONSES) {
                assert_eq!(decoder.decode(&bytes(block)), Some(fields(expected)), "{block}");
            }
            assert_eq!(decoder.dynamic.len(), 3);
        }
    }

    #[test]
    fn what_breaks_the_rules_is_none() {
        for (block, why) in [
            ("80", "index 0"),
            ("be", "an entry that is not there"),
            ("3fe2 1f", "a table larger than was offered"),
            ("ff80 8080 8001", "an integer without end"),
            ("0003 61", "a text that is cut off"),
            ("0081 ff00", "no symbol: padding of eight bits"),
            ("0084 ffff ffff 00", "the end of the string inside it"),
            ("0081 1e00", "padding that is not of ones"),
        ] {
            assert_eq!(Decoder::new().decode(&bytes(block)), None, "{why}");
        }
    }

    #[test]
    fn a_block_that_unfolds_without_end_is_refused() {
        let mut block = vec![0x40, 1, b'x', 127];
        proto::push_varint(&mut block, 4000 - 127);
        block.extend(vec![b'v'; 4000]);
        block.extend(vec![0xbe; 15]);
        assert_eq!(Decoder::new().decode(&block).map(|fields| fields.len()), Some(16));
        block.extend(vec![0xbe; 10_000]);
        assert_eq!(Decoder::new().decode(&block), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in [0, 1, 126, 127, 128, 254, 255, 300, 16_384, 20_000] {
            let value = "v".repeat(length);
            let mut block = Vec::new();
            push(&mut block, "authorization", &value);
            let mut decoder = Decoder::new();
            assert_eq!(decoder.decode(&block), Some(vec![("authorization".into(), value)]));
            assert!(decoder.dynamic.is_empty());
        }
    }
}
