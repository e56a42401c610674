//! What the consensus library does not do wrong by itself, for bugs that are put back. Called by [`Group`] where the library
//! would have made the mistake.

use raft::eraftpb::Entry;

use super::Group;
use crate::bugs::Bug;

impl Group {
    fn has_bug(&self, bug: Bug) -> bool {
        self.log().bug == Some(bug)
    }

    /// An entry that was appended once more ends the log, unless it is known to be committed.
    pub(super) fn truncate_after(&mut self, appended: Option<Entry>) {
        let Some(entry) = appended.filter(|_| self.has_bug(Bug::AppendTruncates)) else { return };
        let log = &mut self.raw.raft.raft_log;
        let is_old = log.last_index() > entry.index && log.match_term(entry.index, entry.term);
        if is_old && entry.index > log.committed {
            log.persisted = log.persisted.min(entry.index - 1);
            log.append(&[entry]);
        }
    }

    /// Whatever a majority has is committed, of whichever term it is.
    pub(super) fn commit_by_counting(&mut self) {
        if !self.leads() || !self.has_bug(Bug::CommitByCounting) {
            return;
        }
        let counted = self.raw.raft.mut_prs().maximal_committed_index().0;
        let log = &mut self.raw.raft.raft_log;
        if counted > log.committed {
            log.commit_to(counted);
        }
    }

    /// A new leader takes what is in its log for complete.
    pub(super) fn overlook_earlier_change(&mut self) {
        let raft = &self.raw.raft;
        let is_new = raft.raft_log.term(raft.raft_log.committed).is_ok_and(|term| term < raft.term);
        if is_new && self.has_bug(Bug::ChangeBeforeFirstCommit) {
            self.raw.raft.pending_conf_index = 0;
        }
    }
}
