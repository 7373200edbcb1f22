#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    stigmer_fuzz::grpc::hpack::fuzz(data);
});
