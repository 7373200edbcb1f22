#![no_main]

use std::fs::File;
use std::io::Write;

const LIMIT: u64 = 1 << 20;

// The bytes as they are, and as the content of a gzip stream.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    compressed.write_all(data).expect("a Vec takes all");
    for bytes in [data, &compressed.finish().expect("a Vec takes all")] {
        let mut output = File::create("/dev/null").expect("/dev/null");
        if let Ok(unpacked) = stigmer_fuzz::install::unpack(bytes, LIMIT, &mut output, || None) {
            assert!(unpacked.size <= LIMIT);
        }
    }
});
