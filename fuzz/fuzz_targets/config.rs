//! See `src/config.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tender_fuzz::config::check(bytes));
