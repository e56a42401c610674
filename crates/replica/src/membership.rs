//! What `ReplicaLogState::membership` holds: who votes, and the newest commit timestamp among compacted entries.
//!
//! Written when a replica is created and at every compaction, read when it is opened. Byte for byte it is described in
//! `docs/FORMATS.md`. Always holds: voters are sorted and there is at least one.

use base::{ReplicaId, Timestamp};
use bytes::Bytes;
use storage::Fault;

const VERSION: u8 = 1;

/// Who is in the group, and how far its clock had come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Replicas that vote.
    pub(crate) voters: Vec<ReplicaId>,
    /// Replicas that only receive.
    pub(crate) learners: Vec<ReplicaId>,
    /// The newest commit timestamp among the entries that are compacted away.
    pub(crate) last_timestamp: Timestamp,
}

impl Membership {
    /// A group of one.
    pub(crate) fn sole_voter(replica: ReplicaId) -> Membership {
        Membership { voters: vec![replica], learners: Vec::new(), last_timestamp: Timestamp::default() }
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> Bytes {
        let mut body = vec![VERSION];
        body.extend_from_slice(&self.last_timestamp.to_u64().to_be_bytes());
        for group in [&self.voters, &self.learners] {
            let count = u32::try_from(group.len()).expect("a group has a handful of replicas");
            body.extend_from_slice(&count.to_be_bytes());
            group.iter().for_each(|replica| body.extend_from_slice(&replica.get().to_be_bytes()));
        }
        let checksum = crc32fast::hash(&body);
        body.extend_from_slice(&checksum.to_le_bytes());
        body.into()
    }

    /// Reads the stored form. Faults when it is not what [`Membership::encode`] wrote.
    pub(crate) fn decode(stored: &[u8]) -> storage::Result<Membership> {
        decode(stored).ok_or_else(|| Fault::corruption("the stored membership of a replica is damaged"))
    }
}

fn decode(stored: &[u8]) -> Option<Membership> {
    let (body, checksum) = stored.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (&VERSION, rest) = body.split_first()? else { return None };
    let (stamp, rest) = rest.split_first_chunk::<8>()?;
    let (voters, rest) = decode_group(rest)?;
    let (learners, rest) = decode_group(rest)?;
    let last_timestamp = Timestamp::from_u64(u64::from_be_bytes(*stamp));
    (rest.is_empty() && !voters.is_empty()).then_some(Membership { voters, learners, last_timestamp })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_reads_back_as_written_and_damage_is_noticed() {
        let membership = Membership {
            voters: vec![ReplicaId(3), ReplicaId(9)],
            learners: vec![ReplicaId(12)],
            last_timestamp: Timestamp { seconds: 7, counter: 2 },
        };
        let stored = membership.encode();
        assert_eq!(Membership::decode(&stored), Ok(membership));
        for at in 0..stored.len() {
            let mut damaged = stored.to_vec();
            damaged.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            assert!(Membership::decode(&damaged).is_err(), "byte {at}");
        }
    }
}
