//! Who belongs to a shard's Raft group, and on which node each replica is.
//!
//! Made by whoever creates a replica; changed by the owner loop when a change of membership commits. Stored in two
//! places, byte for byte as `docs/FORMATS.md` describes: in the replica's keyspace, where it moves with the applied
//! index (so that a snapshot carries it), and in the Raft log's state of the replica, from its creation and from every
//! compaction. The keyspace's word counts when it has one. Always holds: there is at least one voter, lists are
//! sorted, and every replica of a list has a node.

use std::collections::BTreeMap;

use base::{NodeId, ReplicaId, Timestamp};
use bytes::Bytes;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use storage::Fault;

const VERSION: u8 = 2;

/// See the module's comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Replicas that vote.
    pub voters: Vec<ReplicaId>,
    /// Replicas that only receive.
    pub learners: Vec<ReplicaId>,
    /// Replicas that vote until a change of several voters is complete: a joint configuration (Raft, section 6).
    pub voters_outgoing: Vec<ReplicaId>,
    /// Outgoing voters that become learners then.
    pub learners_next: Vec<ReplicaId>,
    /// The node of each replica.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
    /// The newest commit timestamp among the entries that are compacted away.
    pub(crate) last_timestamp: Timestamp,
}

/// One step of a change of membership. Several that are proposed together take effect together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A replica begins to receive, without a vote. It gets its first state as a snapshot. One that has a vote loses it.
    AddLearner(ReplicaId, NodeId),
    /// A replica gets a vote: a learner that has caught up.
    Promote(ReplicaId),
    /// A replica belongs no more. Its id is never used again.
    Remove(ReplicaId),
}

impl Membership {
    /// A group of one.
    pub fn sole_voter(replica: ReplicaId, node: NodeId) -> Membership {
        Membership::of_voters([(replica, node)])
    }

    /// A group in which everybody votes.
    pub fn of_voters(voters: impl IntoIterator<Item = (ReplicaId, NodeId)>) -> Membership {
        let nodes: BTreeMap<_, _> = voters.into_iter().collect();
        assert!(!nodes.is_empty(), "a group has at least one voter");
        Membership {
            voters: nodes.keys().copied().collect(),
            learners: Vec::new(),
            voters_outgoing: Vec::new(),
            learners_next: Vec::new(),
            nodes,
            last_timestamp: Timestamp::default(),
        }
    }

    /// All members, each once.
    pub fn replicas(&self) -> Vec<ReplicaId> {
        let mut all = [&self.voters, &self.learners, &self.voters_outgoing].map(Vec::clone).concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether the same replicas belong to both, each in the same role.
    pub(crate) fn has_members_of(&self, other: &Membership) -> bool {
        let roles = |membership: &Membership| {
            let Membership { voters, learners, voters_outgoing, learners_next, .. } = membership.clone();
            [voters, learners, voters_outgoing, learners_next]
        };
        roles(self) == roles(other)
    }

    /// Whether a change of several voters is under way.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// The consensus library's form.
    pub(crate) fn conf_state(&self) -> ConfState {
        let ids = |replicas: &[ReplicaId]| replicas.iter().map(|replica| replica.get()).collect::<Vec<_>>();
        ConfState {
            voters: ids(&self.voters),
            learners: ids(&self.learners),
            voters_outgoing: ids(&self.voters_outgoing),
            learners_next: ids(&self.learners_next),
            auto_leave: self.is_joint(),
            ..ConfState::default()
        }
    }

    /// The membership after a change that left the library with `state`; `added` are the nodes of new replicas.
    pub(crate) fn changed(&self, state: &ConfState, added: &[(ReplicaId, NodeId)]) -> Membership {
        let sorted = |ids: &[u64]| {
            let mut replicas: Vec<_> = ids.iter().copied().map(ReplicaId).collect();
            replicas.sort_unstable();
            replicas
        };
        let mut next = Membership {
            voters: sorted(&state.voters),
            learners: sorted(&state.learners),
            voters_outgoing: sorted(&state.voters_outgoing),
            learners_next: sorted(&state.learners_next),
            nodes: self.nodes.clone(),
            last_timestamp: self.last_timestamp,
        };
        next.nodes.extend(added.iter().copied());
        let members = next.replicas();
        next.nodes.retain(|replica, _| members.binary_search(replica).is_ok());
        next
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> Bytes {
        let mut body = vec![VERSION];
        body.extend_from_slice(&self.last_timestamp.to_u64().to_be_bytes());
        for group in [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next] {
            encode_count(group.len(), &mut body);
            group.iter().for_each(|replica| body.extend_from_slice(&replica.get().to_be_bytes()));
        }
        encode_nodes(self.nodes.iter().map(|(replica, node)| (*replica, *node)), &mut body);
        let checksum = crc32fast::hash(&body);
        body.extend_from_slice(&checksum.to_le_bytes());
        body.into()
    }

    /// Reads the stored form. Faults when it is not what [`Membership::encode`] wrote.
    pub(crate) fn decode(stored: &[u8]) -> storage::Result<Membership> {
        decode(stored).ok_or_else(|| match (is_intact(stored), stored.first()) {
            (true, Some(&version)) if version != VERSION => Fault::directory(format!(
                "the stored membership of a replica has version {version}, and this program reads version {VERSION}"
            )),
            _ => Fault::corruption("the stored membership of a replica is damaged"),
        })
    }
}

/// The library's form of a change, for proposing it.
pub(crate) fn conf_change(changes: &[MemberChange]) -> ConfChangeV2 {
    let single = |change: &MemberChange| {
        let (change_type, replica) = match *change {
            MemberChange::AddLearner(replica, _) => (ConfChangeType::AddLearnerNode, replica),
            MemberChange::Promote(replica) => (ConfChangeType::AddNode, replica),
            MemberChange::Remove(replica) => (ConfChangeType::RemoveNode, replica),
        };
        ConfChangeSingle { change_type, node_id: replica.get(), ..ConfChangeSingle::default() }
    };
    let added = changes.iter().filter_map(|change| match *change {
        MemberChange::AddLearner(replica, node) => Some((replica, node)),
        _ => None,
    });
    let mut context = Vec::new();
    encode_nodes(added, &mut context);
    ConfChangeV2 {
        transition: ConfChangeTransition::Auto,
        changes: changes.iter().map(single).collect::<Vec<_>>().into(),
        context: context.into(),
        ..ConfChangeV2::default()
    }
}

/// Reads a change from an entry's data, which may have come from another node: the Protocol Buffers encoding of
/// `ConfChangeV2`, of which only what [`conf_change`] makes is accepted. Empty data leaves a joint configuration.
pub(crate) fn decode_conf_change(data: &[u8]) -> storage::Result<(ConfChangeV2, Vec<(ReplicaId, NodeId)>)> {
    let damaged = || Fault::corruption("a Raft entry that changes the membership is damaged");
    let mut change = ConfChangeV2::default();
    let mut singles = Vec::new();
    let mut fields = Fields(data);
    while !fields.0.is_empty() {
        match fields.next().ok_or_else(damaged)? {
            (1, Field::Number(0)) => change.transition = ConfChangeTransition::Auto,
            (2, Field::Bytes(bytes)) => singles.push(decode_single(bytes).ok_or_else(damaged)?),
            (3, Field::Bytes(bytes)) => change.context = Bytes::copy_from_slice(bytes),
            _ => return Err(damaged()),
        }
    }
    change.changes = singles.into();
    let added = match change.context.is_empty() {
        true => Vec::new(),
        false => decode_nodes(&change.context).filter(|(_, rest)| rest.is_empty()).ok_or_else(damaged)?.0,
    };
    Ok((change, added))
}

fn decode_single(bytes: &[u8]) -> Option<ConfChangeSingle> {
    let mut single = ConfChangeSingle::default();
    let mut fields = Fields(bytes);
    while !fields.0.is_empty() {
        match fields.next()? {
            (1, Field::Number(0)) => single.change_type = ConfChangeType::AddNode,
            (1, Field::Number(1)) => single.change_type = ConfChangeType::RemoveNode,
            (1, Field::Number(2)) => single.change_type = ConfChangeType::AddLearnerNode,
            (2, Field::Number(replica)) => single.node_id = replica,
            _ => return None,
        }
    }
    (single.node_id != raft::INVALID_ID).then_some(single)
}

/// The fields of one Protocol Buffers message.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    fn next(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        Some((tag >> 3, field))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..=63).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

fn encode_count(count: usize, out: &mut Vec<u8>) {
    let count = u32::try_from(count).expect("a group has a handful of replicas");
    out.extend_from_slice(&count.to_be_bytes());
}

fn encode_nodes(nodes: impl Iterator<Item = (ReplicaId, NodeId)>, out: &mut Vec<u8>) {
    let nodes: Vec<_> = nodes.collect();
    encode_count(nodes.len(), out);
    for (replica, node) in nodes {
        out.extend_from_slice(&replica.get().to_be_bytes());
        out.extend_from_slice(&node.get().to_be_bytes());
    }
}

fn is_intact(stored: &[u8]) -> bool {
    let parts = stored.split_last_chunk::<4>();
    parts.is_some_and(|(body, checksum)| crc32fast::hash(body) == u32::from_le_bytes(*checksum))
}

fn decode(stored: &[u8]) -> Option<Membership> {
    let (body, _) = stored.split_last_chunk::<4>().filter(|_| is_intact(stored))?;
    let (&VERSION, rest) = body.split_first()? else { return None };
    let (stamp, rest) = rest.split_first_chunk::<8>()?;
    let (voters, rest) = decode_group(rest)?;
    let (learners, rest) = decode_group(rest)?;
    let (voters_outgoing, rest) = decode_group(rest)?;
    let (learners_next, rest) = decode_group(rest)?;
    let (nodes, rest) = decode_nodes(rest)?;
    let last_timestamp = Timestamp::from_u64(u64::from_be_bytes(*stamp));
    let nodes = nodes.into_iter().collect();
    let membership = Membership { voters, learners, voters_outgoing, learners_next, nodes, last_timestamp };
    (rest.is_empty() && !membership.voters.is_empty()).then_some(membership)
}

fn decode_group(stored: &[u8]) -> Option<(Vec<ReplicaId>, &[u8])> {
    let (count, mut rest) = stored.split_first_chunk::<4>()?;
    let mut group = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (replica, after) = rest.split_first_chunk::<8>()?;
        group.push(ReplicaId(u64::from_be_bytes(*replica)));
        rest = after;
    }
    Some((group, rest))
}

/// Replicas with their nodes, and what follows them.
type Nodes<'a> = (Vec<(ReplicaId, NodeId)>, &'a [u8]);

fn decode_nodes(stored: &[u8]) -> Option<Nodes<'_>> {
    let (count, mut rest) = stored.split_first_chunk::<4>()?;
    let mut nodes = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (replica, after) = rest.split_first_chunk::<8>()?;
        let (node, after) = after.split_first_chunk::<4>()?;
        nodes.push((ReplicaId(u64::from_be_bytes(*replica)), NodeId(u32::from_be_bytes(*node))));
        rest = after;
    }
    Some((nodes, rest))
}

#[cfg(test)]
mod tests {
    use protobuf::Message;

    use super::*;

    #[test]
    fn a_membership_reads_back_as_written_and_damage_is_noticed() {
        let mut membership = Membership::of_voters([(ReplicaId(3), NodeId(1)), (ReplicaId(9), NodeId(2))]);
        membership.learners = vec![ReplicaId(12)];
        membership.voters_outgoing = vec![ReplicaId(3), ReplicaId(4)];
        membership.learners_next = vec![ReplicaId(4)];
        membership.nodes.extend([(ReplicaId(12), NodeId(5)), (ReplicaId(4), NodeId(6))]);
        membership.last_timestamp = Timestamp { seconds: 7, counter: 2 };
        let stored = membership.encode();
        assert_eq!(Membership::decode(&stored), Ok(membership));
        for at in 0..stored.len() {
            let mut damaged = stored.to_vec();
            damaged.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            assert!(Membership::decode(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_membership_of_another_version_is_named_as_such() {
        let mut body = vec![1, 0, 0];
        body.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        let fault = Membership::decode(&body).expect_err("not read");
        assert_eq!(fault.kind, storage::fault::FaultKind::Directory);
    }

    #[test]
    fn a_change_reads_back_as_the_library_writes_it_and_a_damaged_one_never_panics() {
        let added = (ReplicaId(u64::MAX), NodeId(4));
        let changes = [
            MemberChange::AddLearner(added.0, added.1),
            MemberChange::Promote(ReplicaId(2)),
            MemberChange::Remove(ReplicaId(1)),
        ];
        let change = conf_change(&changes);
        let data = change.write_to_bytes().expect("encodes");
        assert_eq!(decode_conf_change(&data), Ok((change, vec![added])));
        assert_eq!(decode_conf_change(&[]), Ok((ConfChangeV2::default(), Vec::new())));
        for at in 0..data.len() {
            for flip in 1..=255u8 {
                let mut damaged = data.clone();
                damaged.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= flip);
                let _ = decode_conf_change(&damaged);
            }
            let _ = decode_conf_change(data.get(..at).expect("shorter"));
        }
    }
}
