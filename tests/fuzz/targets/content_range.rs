#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Some((start, end, total)) = stigmer_fuzz::install::parse_content_range(text) {
            assert!(start <= end && total.is_none_or(|total| end < total));
        }
    }
});
