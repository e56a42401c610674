//! Unpacking of compressed messages, on arbitrary bytes.
#![no_main]

#[path = "../checks/message.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::run("decompression", data));
