//! Known bugs, put back one at a time to show that the simulator finds them. Compiled only with the feature `bugs`.

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
}

impl Bug {
    /// All bugs with their names.
    pub const ALL: [(&'static str, Bug); 4] = [
        ("answer-before-fsync", Bug::AnswerBeforeFsync),
        ("applied-index-before-batch", Bug::AppliedIndexBeforeBatch),
        ("evaluate-without-overlay", Bug::EvaluateWithoutOverlay),
        ("retry-record-lost", Bug::RetryRecordLost),
    ];
}
