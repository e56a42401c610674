//! Validation of BSON bytes, on arbitrary bytes.
#![no_main]

#[path = "../checks/document.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::run("validate", data));
