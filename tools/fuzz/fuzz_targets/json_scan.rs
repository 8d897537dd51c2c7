//! libFuzzer's loop over JSON texts.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::json_scan::fuzz_json_scan(data));
