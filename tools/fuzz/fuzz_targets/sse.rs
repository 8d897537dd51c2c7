//! libFuzzer's loop over event streams.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::sse::fuzz_sse(data));
