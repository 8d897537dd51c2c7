//! libFuzzer's loop over chunked bodies.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::chunked::fuzz_chunked(data));
