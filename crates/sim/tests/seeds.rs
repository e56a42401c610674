//! Fixed seeds, so that every test run meets the same faults.

use std::sync::atomic::{AtomicU64, Ordering};

use sim::{Kind, Options, Size, run};

/// Seeds that every test run runs.
const SEEDS: u64 = 200;
/// Threads that share them.
const THREADS: usize = 2;

/// A run that is short enough for a debug build.
fn short(seed: u64) -> Options {
    Options { clients: 2, operations: 3, faults: 2, ..Options::new(seed) }
}

#[test]
fn no_seed_violates_anything() {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= SEEDS {
                return;
            }
            let report = run(short(seed));
            let (violations, tail) = (&report.violations, report.tail.join("\n"));
            assert!(violations.is_empty(), "seed {seed}\n{tail}\n{violations:#?}");
            assert!(report.answered > 0, "seed {seed} did nothing");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
}

#[test]
fn the_same_seed_runs_the_same_way_twice_and_another_one_does_not() {
    for seed in [7, 68, 100, 432] {
        let first = run(short(seed));
        assert_eq!(first, run(short(seed)));
        assert_ne!(first.trace_hash, run(short(seed + 1)).trace_hash);
    }
}

#[test]
fn a_whole_cluster_runs_the_same_way_twice() {
    for seed in [5, 10] {
        let options = Options { kind: Some(Kind::Cluster), ..Options::new(seed) };
        assert_eq!(run(options).trace_hash, run(options).trace_hash, "seed {seed}");
    }
}

#[test]
fn every_shard_of_a_lost_node_is_served_elsewhere_within_seconds() {
    let size = Size { nodes: 10, shards: 60, led: 40, rebuilds: true };
    let options = Options { kind: Some(Kind::Large(size)), faults: 0, ..Options::new(1) };
    let report = run(options);
    assert!(report.violations.is_empty(), "{:#?}\n{:#?}", report.figures, report.violations);
    assert_eq!(report.trace_hash, run(options).trace_hash);
}

/// With `--features bugs`: each bug that is put back is found within the first few seeds.
#[cfg(feature = "bugs")]
#[test]
fn every_bug_that_is_put_back_is_found() {
    for (name, bug) in replica::bugs::Bug::ALL {
        let found = (0..10_000).find(|&seed| {
            let options = Options { bug: Some(bug), ..Options::new(seed) };
            !run(options).violations.is_empty()
        });
        assert!(found.is_some(), "{name} goes unnoticed");
    }
}
