//! What the balancer goes by.
//!
//! Kept in the cluster's record, changed by commands of the catalog. Always holds: what is stored has passed `check`.

use base::{Error, Result};
use serde::{Deserialize, Serialize};

/// What the balancer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalancerSettings {
    /// Whether it evens things out. Replicas are rebuilt and nodes are drained also when it does not.
    pub enabled: bool,
    /// A shard with more bytes than this is split. Two neighbours are merged when they have less than a quarter of it together.
    pub split_bytes: u64,
    /// A shard with more operations a second than this is split.
    pub split_operations_per_s: u64,
    /// How many replicas may move to or from one node at a time, at least one.
    pub moves_per_node_max: u32,
    /// Seconds without an answer after which a node's replicas are rebuilt elsewhere.
    pub node_dead_after_s: u32,
}

impl Default for BalancerSettings {
    fn default() -> BalancerSettings {
        BalancerSettings {
            enabled: true,
            split_bytes: 1024 * 1024 * 1024,
            split_operations_per_s: 20_000,
            moves_per_node_max: 2,
            node_dead_after_s: 300,
        }
    }
}

impl BalancerSettings {
    /// The smallest `split_bytes` that makes sense: a shard costs more than it holds below that.
    const SPLIT_BYTES_MIN: u64 = 1024 * 1024;

    /// The shortest `node_dead_after_s`: a restart takes longer than anything below.
    const DEAD_AFTER_S_MIN: u32 = 5;

    /// Fails with `BadValue` (2) on a number that makes no sense.
    pub(crate) fn check(&self) -> Result<()> {
        // Numbers are stored as signed ones.
        let stored = |value: u64| i64::try_from(value).is_ok();
        if self.split_bytes < BalancerSettings::SPLIT_BYTES_MIN || !stored(self.split_bytes) {
            return Err(Error::bad_value(
                "a shard cannot be split at less than 1 MiB, or at more than 8 EiB",
            ));
        }
        if self.split_operations_per_s == 0 || !stored(self.split_operations_per_s) {
            return Err(Error::bad_value("a shard cannot be split at no operations a second, or at 2^63"));
        }
        if self.moves_per_node_max == 0 {
            return Err(Error::bad_value("at least one replica at a time must be allowed to move"));
        }
        if self.node_dead_after_s < BalancerSettings::DEAD_AFTER_S_MIN {
            return Err(Error::bad_value(
                "a node cannot count as dead before it has been silent for 5 seconds",
            ));
        }
        Ok(())
    }
}
