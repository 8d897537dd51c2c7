//! libFuzzer's loop over response heads.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::response_head::fuzz_response_head(data));
