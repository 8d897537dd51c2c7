//! libFuzzer's loop over request heads.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::request_head::fuzz_request_head(data));
