//! How many entries a scan would visit, found out from the index itself.
//!
//! Called by the planner when it must choose. Always holds: a probe reads at most a bounded number of entries, so that
//! planning stays cheap however large the index is.

use storage::{Direction, KeyRange, Result, View};

use super::access::IndexAccess;
use crate::encoding::{self, Count};

/// Most entries that a probe counts before it extrapolates.
pub(super) const PROBE_ENTRIES: u64 = 1_000;
/// Ranges that a probe opens before it extrapolates.
const PROBE_RANGES: usize = 50;

/// The documents in the shard.
pub(super) fn documents(view: &dyn View) -> Result<u64> {
    Ok(Count::decode(view.get(encoding::COUNT_KEY)?.as_deref())?.documents)
}

/// The entries that the access would visit: counted up to `probe`, else guessed from its shape.
pub(super) fn entries(view: &dyn View, access: &IndexAccess, documents: u64, probe: u64) -> Result<f64> {
    if !access.is_bounded() {
        return Ok(documents as f64);
    }
    let mut counted = 0;
    let probed = access.ranges.len().min(PROBE_RANGES);
    for range in access.ranges.iter().take(PROBE_RANGES) {
        counted += count(view, range, probe - counted)?;
        if counted >= probe {
            return Ok(guess(access, documents));
        }
    }
    Ok(counted as f64 * access.ranges.len() as f64 / probed.max(1) as f64)
}

fn count(view: &dyn View, range: &KeyRange, limit: u64) -> Result<u64> {
    let mut counted = 0;
    let mut scan = view.scan(range.clone(), Direction::Forward);
    while counted < limit {
        match scan.next() {
            Some(entry) => entry?,
            None => break,
        };
        counted += 1;
    }
    Ok(counted)
}

/// For a scan of more entries than a probe counts: more bounds, fewer entries.
fn guess(access: &IndexAccess, documents: u64) -> f64 {
    let floor = PROBE_ENTRIES as f64;
    let rest = (documents as f64 / floor).max(1.0);
    let points = access.point_fields() as i32;
    let ranges = access.bounded_fields() as i32 - points;
    // Each field with single values takes two thirds of what is left between the floor and all, each with a range one.
    floor * rest.powf(0.33_f64.powi(points) * 0.67_f64.powi(ranges))
}
