//! Parts of snapshots. The header's membership is checked by the host that installs it, a chunk's checksum by the
//! receiver that takes it.

use base::{LogIndex, ReplicaId, Result, ShardId, Term};
use replica::snapshot::{Chunk, SnapshotHeader};

use super::Wire;
use crate::v1;

impl Wire for SnapshotHeader {
    type Message = v1::SnapshotStart;

    /// The start of a snapshot, its hello still missing.
    fn into_wire(self) -> Result<v1::SnapshotStart> {
        Ok(v1::SnapshotStart {
            hello: None,
            shard: self.shard.get(),
            from: self.from.get(),
            to: self.to.get(),
            term: self.term.get(),
            index: self.index.get(),
            index_term: self.index_term.get(),
            membership: self.membership,
        })
    }

    fn from_wire(message: v1::SnapshotStart) -> Result<SnapshotHeader> {
        Ok(SnapshotHeader {
            shard: ShardId(message.shard),
            from: ReplicaId(message.from),
            to: ReplicaId(message.to),
            term: Term(message.term),
            index: LogIndex(message.index),
            index_term: Term(message.index_term),
            membership: message.membership,
        })
    }
}

impl Wire for Chunk {
    type Message = v1::SnapshotChunk;

    fn into_wire(self) -> Result<v1::SnapshotChunk> {
        let pairs = self.pairs.into_iter().map(|(key, value)| v1::SnapshotPair { key, value }).collect();
        Ok(v1::SnapshotChunk { pairs, checksum: self.checksum })
    }

    fn from_wire(message: v1::SnapshotChunk) -> Result<Chunk> {
        let pairs = message.pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
        Ok(Chunk { pairs, checksum: message.checksum })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_header_and_a_chunk_arrive_as_they_were() {
        let header = SnapshotHeader {
            shard: ShardId(1),
            from: ReplicaId(2),
            to: ReplicaId(3),
            term: Term(4),
            index: LogIndex(5),
            index_term: Term(6),
            membership: Bytes::from_static(b"members"),
        };
        let travelling = header.clone().into_wire().expect("travels");
        assert_eq!(SnapshotHeader::from_wire(travelling), Ok(header));
        let chunk = Chunk::new(vec![(Bytes::from_static(b"key"), Bytes::from_static(b"value"))]);
        let travelling = chunk.clone().into_wire().expect("travels");
        assert_eq!(Chunk::from_wire(travelling), Ok(chunk));
    }
}
