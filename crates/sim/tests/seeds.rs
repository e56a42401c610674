//! Fixed seeds, so that every test run meets the same crashes.

use sim::{Options, run};

/// Seeds that every test run runs.
const SEEDS: u64 = 200;

#[test]
fn no_seed_violates_anything() {
    for seed in 0..SEEDS {
        let report = run(Options::new(seed));
        let (violations, tail) = (&report.violations, report.tail.join("\n"));
        assert!(violations.is_empty(), "seed {seed}\n{tail}\n{violations:#?}");
        assert!(report.answered > 0, "seed {seed} did nothing");
    }
}

#[test]
fn the_same_seed_runs_the_same_way_twice_and_another_one_does_not() {
    let first = run(Options::new(7));
    assert_eq!(first, run(Options::new(7)));
    assert_ne!(first.trace_hash, run(Options::new(8)).trace_hash);
}

/// With `--features bugs`: each bug that is put back is found within the first few seeds.
#[cfg(feature = "bugs")]
#[test]
fn every_bug_that_is_put_back_is_found() {
    for (name, bug) in replica::bugs::Bug::ALL {
        let found = (0..1_000).find(|&seed| {
            let options = Options { bug: Some(bug), ..Options::new(seed) };
            !run(options).violations.is_empty()
        });
        assert!(found.is_some(), "{name} goes unnoticed");
    }
}
