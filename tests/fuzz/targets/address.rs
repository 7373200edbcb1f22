#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        // What is taken is written back in a form that means the same.
        if let Ok(address) = stigmer_fuzz::config::parse_address(text) {
            assert_eq!(stigmer_fuzz::config::parse_address(&address.to_string()), Ok(address));
        }
    }
});
