//! The store agrees with a model: ordered maps, one for each keyspace, cloned for each view.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::LogIndex;
use bytes::Bytes;
use proptest::prelude::*;
use storage::{Direction, KeyRange, KvBatch, View};

use crate::support::{AnyStore, keyspace, small_store};

type Map = BTreeMap<Bytes, Bytes>;

#[derive(Clone, Debug)]
enum Step {
    /// Puts (with a value) and deletes (without), in one batch.
    Apply {
        keyspace: u64,
        ops: Vec<(Bytes, Option<Bytes>)>,
    },
    OpenView {
        keyspace: u64,
    },
    CloseView,
    Scan {
        start: Bytes,
        end: Option<Bytes>,
        reverse: bool,
    },
    Get {
        key: Bytes,
    },
    WriteTables {
        keyspace: u64,
    },
    Flush,
    Drop {
        keyspace: u64,
    },
    Reopen,
}

/// Short keys over few letters, so that they meet; some long ones with common prefixes.
fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        proptest::collection::vec(1..4_u8, 1..4).prop_map(Bytes::from),
        (0..6_u8).prop_map(|last| [vec![7; 300], vec![last]].concat().into()),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from),
        1 => (any::<u8>(), 500..3000_usize).prop_map(|(byte, length)| vec![byte; length].into()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let op = (key(), proptest::option::weighted(0.7, value()));
    prop_oneof![
        8 => (0..2_u64, proptest::collection::vec(op, 0..8)).prop_map(|(keyspace, ops)| Step::Apply { keyspace, ops }),
        2 => (0..2_u64).prop_map(|keyspace| Step::OpenView { keyspace }),
        1 => Just(Step::CloseView),
        4 => (key(), proptest::option::of(key()), any::<bool>())
            .prop_map(|(start, end, reverse)| Step::Scan { start, end, reverse }),
        4 => key().prop_map(|key| Step::Get { key }),
        1 => (0..2_u64).prop_map(|keyspace| Step::WriteTables { keyspace }),
        1 => Just(Step::Flush),
        1 => (0..2_u64).prop_map(|keyspace| Step::Drop { keyspace }),
        1 => Just(Step::Reopen),
    ]
}

/// Runs steps on a store and on the model, comparing whatever can be read.
fn check(mut store: AnyStore, steps: Vec<Step>) {
    let mut maps = [Map::new(), Map::new()];
    let mut applied = [0_u64; 2];
    let mut views: Vec<(Arc<dyn View>, Map)> = Vec::new();
    for number in 0..2 {
        store.get().create_keyspace(keyspace(number)).expect("created");
    }
    for step in steps {
        match step {
            Step::Apply { keyspace: number, ops } => {
                let slot = number as usize;
                let mut batch = KvBatch::default();
                for (key, value) in ops {
                    match value {
                        Some(value) => {
                            maps[slot].insert(key.clone(), value.clone());
                            batch.put(key, value);
                        }
                        None => {
                            maps[slot].remove(&key);
                            batch.delete(key);
                        }
                    }
                }
                applied[slot] += 3;
                store.get().apply(keyspace(number), &batch, LogIndex(applied[slot])).expect("applied");
            }
            Step::OpenView { keyspace: number } => {
                let view = store.get().view(keyspace(number)).expect("a view");
                assert_eq!(view.applied_index(), Ok(LogIndex(applied[number as usize])));
                views.push((view, maps[number as usize].clone()));
            }
            Step::CloseView => drop(views.pop()),
            Step::Scan { start, end, reverse } => {
                for number in 0..2 {
                    let view = store.get().view(keyspace(number)).expect("a view");
                    compare_scan(&*view, &maps[number as usize], &start, end.as_ref(), reverse);
                }
                for (view, map) in &views {
                    compare_scan(&**view, map, &start, end.as_ref(), reverse);
                }
            }
            Step::Get { key } => {
                for number in 0..2 {
                    let view = store.get().view(keyspace(number)).expect("a view");
                    assert_eq!(view.get(&key), Ok(maps[number as usize].get(&key).cloned()));
                }
                for (view, map) in &views {
                    assert_eq!(view.get(&key), Ok(map.get(&key).cloned()));
                }
            }
            Step::WriteTables { keyspace: number } => store.write_tables(keyspace(number)).expect("written"),
            Step::Flush => {
                store.get().flush().expect("flushed");
                for number in 0..2 {
                    let durable = store.get().durable_index(keyspace(number)).expect("an index");
                    assert_eq!(durable, LogIndex(applied[number as usize]));
                }
            }
            Step::Drop { keyspace: number } => {
                store.get().drop_keyspace(keyspace(number)).expect("dropped");
                store.get().create_keyspace(keyspace(number)).expect("created");
                maps[number as usize].clear();
                applied[number as usize] = 0;
            }
            Step::Reopen => {
                views.clear();
                store.reopen().expect("reopened");
                for number in 0..2 {
                    let index = store.get().applied_index(keyspace(number)).expect("an index");
                    assert_eq!(index, LogIndex(applied[number as usize]));
                }
            }
        }
    }
}

fn compare_scan(view: &dyn View, map: &Map, start: &Bytes, end: Option<&Bytes>, reverse: bool) {
    let range = KeyRange { start: start.clone(), end: end.cloned() };
    let mut expected: Vec<_> = map.iter().filter(|(key, _)| range.contains(key)).collect();
    if reverse {
        expected.reverse();
    }
    let direction = if reverse { Direction::Reverse } else { Direction::Forward };
    let found: Vec<_> = view.scan(range, direction).map(|item| item.expect("readable")).collect();
    assert_eq!(found.iter().map(|(key, value)| (key, value)).collect::<Vec<_>>(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_in_memory_agrees_with_ordered_maps(steps in proptest::collection::vec(step(), 1..60)) {
        check(AnyStore::memory(), steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_store_on_disk_agrees_with_ordered_maps(steps in proptest::collection::vec(step(), 1..60)) {
        check(AnyStore::engine(), steps);
    }

    #[test]
    fn the_store_on_disk_agrees_with_ordered_maps_when_it_separates_large_values(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let options = storage::StoreOptions { separate_values_from_bytes: Some(512), ..small_store() };
        check(AnyStore::engine_with(options), steps);
    }
}
