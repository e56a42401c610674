//! Which shard executes a statement whose document may be in any of them.
//!
//! Such a statement goes to all shards twice: each is asked whether an earlier attempt was executed there, and then one of
//! them executes it. So that two attempts which do not know of each other (the client has sent it again through another
//! router) never both execute it, each has a ballot, as in Lamport, "The Part-Time Parliament" (1998): a shard that was
//! asked by a higher ballot executes no attempt of a lower one, and does not let it ask either. What a shard remembers of
//! ballots is in its leader's memory alone; whoever was asked before that was lost must ask again.

use std::collections::HashMap;

use base::{BootId, Code, Error, SessionId, Timestamp};
use storage::Fault;

use super::evaluator::Records;
use super::{Evaluation, Outcome, Reader, ShardReply, WriteContext};
use crate::state::ShardState;
use storage::KvBatch;

/// Statements that a shard remembers ballots of. More than this and all are forgotten.
const FENCES_MAX: usize = 65_536;

/// The rank of an attempt: higher ones win, and no two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ballot {
    /// Grows with every attempt of a router.
    pub round: u64,
    /// The router.
    pub boot: BootId,
}

/// Asks for a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The session or identity by which a repeat is recognised.
    pub session: SessionId,
    /// Its transaction number.
    pub txn: i64,
    /// The statement.
    pub stmt_id: i32,
    /// The attempt.
    pub ballot: Ballot,
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbeReply {
    /// An earlier attempt was executed here, and did this.
    Executed(Outcome),
    /// None was, and none of a lower ballot will be.
    Fenced(Fence),
    /// An attempt of this higher ballot is under way.
    Outranked(Ballot),
}

/// Lets an attempt be executed by a shard, while nothing higher has asked there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The attempt.
    pub ballot: Ballot,
    /// Since when the shard remembers ballots.
    pub since: Timestamp,
}

/// The highest ballots that asked for statements. One statement of a session is under way at a time.
#[derive(Default)]
pub(super) struct Fences {
    /// `None` until something is remembered.
    since: Option<Timestamp>,
    highest: HashMap<SessionId, (i64, i32, Ballot)>,
}

impl Fences {
    /// Remembers an attempt. The fence, or the higher ballot.
    fn raise(&mut self, probe: &Probe, now: Timestamp) -> Result<Fence, Ballot> {
        if self.highest.len() >= FENCES_MAX {
            *self = Fences::default();
        }
        let since = *self.since.get_or_insert(now);
        let entry = self.highest.entry(probe.session).or_insert((probe.txn, probe.stmt_id, probe.ballot));
        if (entry.0, entry.1) == (probe.txn, probe.stmt_id) && entry.2 > probe.ballot {
            return Err(entry.2);
        }
        *entry = (probe.txn, probe.stmt_id, probe.ballot);
        Ok(Fence { ballot: probe.ballot, since })
    }

    /// Whether an attempt may be executed.
    pub(super) fn allows(&self, (session, txn): (SessionId, i64), stmt_id: i32, fence: &Fence) -> bool {
        self.since == Some(fence.since) && self.highest.get(&session) == Some(&(txn, stmt_id, fence.ballot))
    }
}

pub(super) fn evaluate(
    state: &ShardState,
    records: &mut Records,
    cx: &WriteContext,
    reader: &dyn Reader,
    probe: &Probe,
) -> Result<Evaluation, Fault> {
    if !state.serves() {
        return Ok(Evaluation::refused(Error::new(Code::STALE_CONFIG, "The shard does not serve")));
    }
    let remembered = match records.load(state, reader, probe.session, probe.txn)? {
        Ok(remembered) => remembered,
        Err(error) => return Ok(Evaluation::refused(error)),
    };
    let reply = match remembered.outcome_of_one(probe.stmt_id) {
        Some(outcome) => ProbeReply::Executed(outcome.clone()),
        None => match records.fences.raise(probe, cx.commit_timestamp) {
            Ok(fence) => ProbeReply::Fenced(fence),
            Err(higher) => ProbeReply::Outranked(higher),
        },
    };
    Ok(Evaluation::new(KvBatch::default(), Ok(ShardReply::Probed(reply))))
}
