//! Parsing and matching of filters, on arbitrary bytes.
#![no_main]

#[path = "../checks/document.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::run("filter", data));
