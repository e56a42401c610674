//! What a router does wrong when a bug is put back. Called where it would have made the mistake.

use query::copy::Pairs;
use query::encoding::TAG_RETRY;
use query::state::ShardState;
use replica::bugs::Bug;

use crate::Router;

impl Router {
    /// Whether the bug is put back.
    pub(crate) fn has_bug(&self, bug: Bug) -> bool {
        self.host.has_bug(bug)
    }

    /// Whether a shard answers reads that it must not answer.
    pub(crate) fn reads_wrongly(&self, state: &ShardState) -> bool {
        state.sealed && state.receiving.is_empty() && self.has_bug(Bug::ReadWhileSealed)
    }

    /// What goes to the targets of a copy.
    pub(crate) fn buggy_pairs(&self, mut pairs: Vec<Pairs>) -> Vec<Pairs> {
        if self.has_bug(Bug::RetryRecordsNotCopied) {
            pairs.iter_mut().for_each(|pairs| pairs.retain(|(key, _)| key.first() != Some(&TAG_RETRY)));
        }
        pairs
    }
}
