//! Random and damaged bytes: they are read or refused, never a panic.

use std::path::Path;

use bson::doc;
use proptest::prelude::*;

use crate::support::client::{frame, op_msg, op_query};

#[path = "../../../fuzz/checks/message.rs"]
mod checks;

/// Everything that looks at a message's bytes.
fn read(bytes: &[u8]) {
    checks::run("framing", bytes);
    checks::run("decompression", bytes);
}

#[test]
fn every_input_of_the_fuzz_corpus_passes() {
    for target in ["framing", "decompression"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let entries = std::fs::read_dir(&directory).expect("the target has a corpus");
        let inputs: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        assert!(!inputs.is_empty(), "no inputs in {}", directory.display());
        for input in inputs {
            checks::run(target, &std::fs::read(&input).expect("readable"));
        }
    }
}

fn valid_messages() -> Vec<Vec<u8>> {
    let body = doc! { "insert": "c", "$db": "test", "ordered": true };
    let sequences = [("documents".to_owned(), vec![doc! { "a": [1, { "b": "é" }] }, doc! { "_id": 2 }])];
    let payload = op_msg(0, &body, &sequences);
    let packed = |id: u8, data: Vec<u8>| {
        let claimed = i32::try_from(payload.len()).expect("short");
        [&2013_i32.to_le_bytes()[..], &claimed.to_le_bytes(), &[id], &data].concat()
    };
    let snappy = snap::raw::Encoder::new().compress_vec(&payload).expect("compresses");
    let zstd = zstd::encode_all(payload.as_slice(), 0).expect("compresses");
    vec![
        frame(1, 2013, &payload),
        frame(1, 2004, &op_query("admin.$cmd", &doc! { "isMaster": 1 })),
        frame(1, 2012, &packed(1, snappy)),
        frame(1, 2012, &packed(3, zstd)),
    ]
}

#[test]
fn every_prefix_of_a_valid_message_is_read_or_refused() {
    for message in valid_messages() {
        for length in 0..message.len() {
            read(&message[..length]);
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes);
    }

    #[test]
    fn damaged_messages_are_read_or_refused(
        which in 0..4_usize,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut message = valid_messages().swap_remove(which);
        for (index, byte) in damage {
            let at = index.index(message.len());
            message[at] = byte;
        }
        read(&message);
    }
}
