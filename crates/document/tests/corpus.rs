//! Replays the fuzz corpus: inputs that a fuzzer found, or that were written as its seeds, in `fuzz/corpus/<target>/`.

#[path = "../../../fuzz/checks/document.rs"]
mod checks;

use std::path::Path;

#[test]
fn every_input_of_the_fuzz_corpus_passes() {
    for target in ["validate", "key", "filter", "update", "pipeline"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let entries = std::fs::read_dir(&directory).expect("each target has a corpus");
        let mut inputs: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} is empty", directory.display());
        for input in inputs {
            checks::run(target, &std::fs::read(&input).expect("readable"));
        }
    }
}
