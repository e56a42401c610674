//! Known bugs, put back one at a time to show that the simulator finds them. Compiled only with the feature `bugs`.
//!
//! Each is a mistake that a consensus or storage layer, or the moving of data between shards, is known to have been made with.
//! What the consensus library itself would have to do wrong is done around it.

/// A bug that the simulator must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Commands are answered when they are proposed, not when their entry is durable.
    AnswerBeforeFsync,
    /// The applied index reaches the store one batch before the changes that it stands for.
    AppliedIndexBeforeBatch,
    /// Commands are evaluated against the store alone, without what is proposed and not applied.
    EvaluateWithoutOverlay,
    /// Retry records are not written, so a command that is sent again is evaluated again.
    RetryRecordLost,
    /// Votes are cast without a word of them in the Raft log.
    VoteWithoutPersisting,
    /// A vote is durable before it is cast, but the term that it is for only with the next write.
    TermAndVoteApart,
    /// A leader commits an entry of an earlier term once a majority has it.
    CommitByCounting,
    /// A follower's log ends where the last append ended, although more of it was acknowledged.
    AppendTruncates,
    /// A follower applies what it has logged, committed or not.
    ApplyBeforeCommit,
    /// A snapshot's keys are installed without the index that they stand for.
    SnapshotWithoutIndex,
    /// A lease runs for a whole election timeout.
    LeaseWithoutMargin,
    /// A lease runs from the moment in which its acknowledgement came.
    LeaseFromReceipt,
    /// A replica that has just restarted grants votes.
    VoteAfterRestart,
    /// A replica whose disk was lost comes back empty under its old id. Done by the simulator.
    WipedReplicaKeepsItsId,
    /// A duplicate key is reported before what it was found in is committed.
    DuplicateFromUncommitted,
    /// A leader answers reads before it has committed an entry of its own term.
    ReadBeforeFirstCommit,
    /// Snapshots lack the retry records.
    SnapshotWithoutRetryRecords,
    /// The cache of the Raft log keeps entries that others replaced.
    CacheKeepsTruncated,
    /// What was proposed and lost with the leadership is still evaluated against.
    EvaluateAgainstDropped,
    /// A leader changes the membership before it has committed an entry of its own term, though an earlier leader's change
    /// may be under way.
    ChangeBeforeFirstCommit,
    /// A replica that sleeps does not hear that another node is lost.
    SleepThroughLoss,
    /// A learner gets a vote before it has anything.
    PromoteEmptyLearner,
    /// A shard that others are about to take the place of is not sealed while the last changes are sent to them.
    ServeAfterSeal,
    /// A shard is said to be copied without what changed since the last look.
    TailNotSent,
    /// Retry records stay behind when a shard is copied.
    RetryRecordsNotCopied,
    /// A shard takes writes by whatever version of the shard map they were routed, also when it does not serve.
    EpochNotChecked,
    /// A shard answers reads although it is sealed, and others may have taken its place.
    ReadWhileSealed,
}

impl Bug {
    /// All bugs with their names.
    pub const ALL: [(&'static str, Bug); 27] = [
        ("answer-before-fsync", Bug::AnswerBeforeFsync),
        ("applied-index-before-batch", Bug::AppliedIndexBeforeBatch),
        ("evaluate-without-overlay", Bug::EvaluateWithoutOverlay),
        ("retry-record-lost", Bug::RetryRecordLost),
        ("vote-without-persisting", Bug::VoteWithoutPersisting),
        ("term-and-vote-apart", Bug::TermAndVoteApart),
        ("commit-by-counting", Bug::CommitByCounting),
        ("append-truncates", Bug::AppendTruncates),
        ("apply-before-commit", Bug::ApplyBeforeCommit),
        ("snapshot-without-index", Bug::SnapshotWithoutIndex),
        ("lease-without-margin", Bug::LeaseWithoutMargin),
        ("lease-from-receipt", Bug::LeaseFromReceipt),
        ("vote-after-restart", Bug::VoteAfterRestart),
        ("wiped-replica-keeps-its-id", Bug::WipedReplicaKeepsItsId),
        ("duplicate-from-uncommitted", Bug::DuplicateFromUncommitted),
        ("read-before-first-commit", Bug::ReadBeforeFirstCommit),
        ("snapshot-without-retry-records", Bug::SnapshotWithoutRetryRecords),
        ("cache-keeps-truncated", Bug::CacheKeepsTruncated),
        ("evaluate-against-dropped", Bug::EvaluateAgainstDropped),
        ("change-before-first-commit", Bug::ChangeBeforeFirstCommit),
        ("sleep-through-loss", Bug::SleepThroughLoss),
        ("promote-empty-learner", Bug::PromoteEmptyLearner),
        ("serve-after-seal", Bug::ServeAfterSeal),
        ("tail-not-sent", Bug::TailNotSent),
        ("retry-records-not-copied", Bug::RetryRecordsNotCopied),
        ("epoch-not-checked", Bug::EpochNotChecked),
        ("read-while-sealed", Bug::ReadWhileSealed),
    ];

    /// Whether it takes a whole cluster to find it.
    pub fn is_of_clusters(self) -> bool {
        matches!(
            self,
            Bug::SleepThroughLoss
                | Bug::PromoteEmptyLearner
                | Bug::ServeAfterSeal
                | Bug::TailNotSent
                | Bug::RetryRecordsNotCopied
                | Bug::EpochNotChecked
                | Bug::ReadWhileSealed
        )
    }
}
