//! Replays the fuzz corpus: inputs that a fuzzer found, or that were written as its seeds, in `fuzz/corpus/<target>/`.

#[path = "../../../fuzz/checks/document.rs"]
mod checks;

use std::path::Path;

use proptest::prelude::*;

const TARGETS: [&str; 5] = ["validate", "key", "filter", "update", "pipeline"];

#[test]
fn every_input_of_the_fuzz_corpus_passes() {
    for target in TARGETS {
        for input in corpus(target) {
            checks::run(target, &input);
        }
    }
}

/// The inputs of one target, in the order of their names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&directory).expect("each target has a corpus");
    let mut inputs: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", directory.display());
    inputs.into_iter().map(|input| std::fs::read(input).expect("readable")).collect()
}

/// Bytes that change what an operand is without breaking the document around it.
fn telling_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![0x01, 0x02, 0x03, 0x04, 0x08, 0x0A, 0x10, 0x12, 0x13, 0x7F, 0xFF]),
        prop::sample::select(b"$.0123abcn".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_inputs_of_the_fuzz_corpus_pass_too(
        target in prop::sample::select(TARGETS.to_vec()),
        input in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), telling_byte()), 1..5),
    ) {
        let inputs = corpus(target);
        let mut bytes = inputs[input.index(inputs.len())].clone();
        for (position, byte) in damage {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        checks::run(target, &bytes);
    }
}
