#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let name = "temporal_cli_1.9.1_linux_amd64.tar.gz";
        if stigmer_fuzz::release::digest_in_checksums(text, name).is_some() {
            assert!(text.contains(name));
        }
    }
});
