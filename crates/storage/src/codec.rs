//! Bytes of the records this crate writes itself: a reader that never runs past its input, and the encodings of Raft
//! log state, log batches and key-value batches. Called by the engines of this crate only.
//!
//! Always holds: whatever is decoded was sealed by [`seal`], so that damaged bytes end as a [`Fault`] and never as
//! another value. Integers are little-endian. `docs/FORMATS.md` describes the records byte by byte.

use base::{Generation, LogIndex, ReplicaId, ShardId, Term};
use bytes::{Buf, BufMut, Bytes};

use crate::{Fault, KeyspaceName, KvBatch, KvOp, LogBatch, LogEntry, ReplicaLogState, ReplicaWrites, Result};

/// Bytes that [`seal`] puts before a record: version and CRC-32.
pub(crate) const SEAL_BYTES: usize = 5;

/// Version of all records that are written today.
const VERSION: u8 = 1;

/// A record of the current version: version byte, CRC-32 of version and body, body.
pub(crate) fn seal(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEAL_BYTES + body.len());
    out.put_u8(VERSION);
    out.put_u32_le(checksum(VERSION, body));
    out.put_slice(body);
    out
}

/// The body of a sealed record. `what` names the record in the fault.
pub(crate) fn unseal(mut record: Bytes, what: &str) -> Result<Bytes> {
    if record.len() < SEAL_BYTES {
        return Err(Fault::corruption(format!("{what} is cut short: {} bytes", record.len())));
    }
    let version = record.get_u8();
    let stored = record.get_u32_le();
    let computed = checksum(version, &record);
    if stored != computed {
        return Err(Fault::corruption(format!(
            "{what} fails its checksum: stored {stored:08x}, computed {computed:08x}"
        )));
    }
    if version != VERSION {
        return Err(Fault::directory(format!(
            "{what} has format version {version}, and this program reads version {VERSION}"
        )));
    }
    Ok(record)
}

fn checksum(version: u8, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[version]);
    hasher.update(body);
    hasher.finalize()
}

/// Takes fields off the front of a record.
pub(crate) struct Reader<'a> {
    bytes: Bytes,
    what: &'a str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: Bytes, what: &'a str) -> Reader<'a> {
        Reader { bytes, what }
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.take(1).map(|mut field| field.get_u8())
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.take(4).map(|mut field| field.get_u32_le())
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.take(8).map(|mut field| field.get_u64_le())
    }

    /// A length (u32) and that many bytes.
    pub(crate) fn blob(&mut self) -> Result<Bytes> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes> {
        if self.bytes.len() < length {
            return Err(Fault::corruption(format!("{} ends in the middle of a field", self.what)));
        }
        Ok(self.bytes.split_to(length))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is left.
    pub(crate) fn rest(self) -> Bytes {
        self.bytes
    }
}

/// Appends a length (u32) and the bytes.
pub(crate) fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("no key, value or entry comes near 4 GiB");
    out.put_u32_le(length);
    out.put_slice(bytes);
}

/// Appends a keyspace's name: shard, replica, generation.
pub(crate) fn put_keyspace(out: &mut Vec<u8>, name: KeyspaceName) {
    out.put_u64_le(name.shard.get());
    out.put_u64_le(name.replica.get());
    out.put_u32_le(name.generation.get());
}

/// Reads what [`put_keyspace`] wrote.
pub(crate) fn keyspace(reader: &mut Reader<'_>) -> Result<KeyspaceName> {
    Ok(KeyspaceName {
        shard: ShardId(reader.u64()?),
        replica: ReplicaId(reader.u64()?),
        generation: Generation(reader.u32()?),
    })
}

/// Encodes a replica's log state, without a seal.
pub(crate) fn encode_state(state: &ReplicaLogState, out: &mut Vec<u8>) {
    out.put_u64_le(state.shard.get());
    out.put_u64_le(state.term.get());
    out.put_u64_le(state.vote.map_or(0, ReplicaId::get));
    out.put_u64_le(state.commit.get());
    out.put_u32_le(state.generation.get());
    out.put_u64_le(state.truncated_index.get());
    out.put_u64_le(state.truncated_term.get());
    out.put_slice(&state.membership);
}

/// Decodes a replica's log state.
pub(crate) fn decode_state(body: Bytes) -> Result<ReplicaLogState> {
    let mut reader = Reader::new(body, "the state of a replica in the Raft log");
    Ok(ReplicaLogState {
        shard: ShardId(reader.u64()?),
        term: Term(reader.u64()?),
        vote: Some(reader.u64()?).filter(|&vote| vote != 0).map(ReplicaId),
        commit: LogIndex(reader.u64()?),
        generation: Generation(reader.u32()?),
        truncated_index: LogIndex(reader.u64()?),
        truncated_term: Term(reader.u64()?),
        membership: reader.rest(),
    })
}

/// Encodes a batch of the Raft log, without a seal.
pub(crate) fn encode_log_batch(batch: &LogBatch) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u32_le(batch.replicas.len() as u32);
    for (replica, writes) in &batch.replicas {
        out.put_u64_le(replica.get());
        encode_replica_writes(writes, &mut out);
    }
    for (key, value) in &batch.node {
        put_blob(&mut out, key.as_bytes());
        put_blob(&mut out, value);
    }
    out
}

fn encode_replica_writes(writes: &ReplicaWrites, out: &mut Vec<u8>) {
    out.put_u8(u8::from(writes.clean));
    out.put_u32_le(writes.entries.len() as u32);
    for entry in &writes.entries {
        out.put_u64_le(entry.index.get());
        out.put_u64_le(entry.term.get());
        out.put_u8(entry.kind);
        put_blob(out, &entry.data);
    }
    let mut state = Vec::new();
    if let Some(new) = &writes.state {
        encode_state(new, &mut state);
    }
    put_blob(out, &state);
    out.put_u64_le(writes.compact_to.map_or(0, LogIndex::get));
}

/// Decodes a batch of the Raft log.
pub(crate) fn decode_log_batch(body: Bytes) -> Result<LogBatch> {
    let mut reader = Reader::new(body, "a batch of the Raft log");
    let mut batch = LogBatch::default();
    for _ in 0..reader.u32()? {
        let replica = ReplicaId(reader.u64()?);
        batch.replicas.push((replica, decode_replica_writes(&mut reader)?));
    }
    while !reader.is_empty() {
        let key = String::from_utf8(reader.blob()?.to_vec())
            .map_err(|_| Fault::corruption("a key of the node in the Raft log is not UTF-8"))?;
        batch.node.push((key, reader.blob()?));
    }
    Ok(batch)
}

fn decode_replica_writes(reader: &mut Reader<'_>) -> Result<ReplicaWrites> {
    let mut writes = ReplicaWrites { clean: reader.u8()? != 0, ..ReplicaWrites::default() };
    for _ in 0..reader.u32()? {
        writes.entries.push(LogEntry {
            index: LogIndex(reader.u64()?),
            term: Term(reader.u64()?),
            kind: reader.u8()?,
            data: reader.blob()?,
        });
    }
    let state = reader.blob()?;
    if !state.is_empty() {
        writes.state = Some(decode_state(state)?);
    }
    writes.compact_to = Some(reader.u64()?).filter(|&index| index != 0).map(LogIndex);
    Ok(writes)
}

/// Encodes a key-value batch, without a seal.
pub(crate) fn encode_kv_batch(batch: &KvBatch, out: &mut Vec<u8>) {
    for op in &batch.ops {
        out.put_u8(u8::from(op.value().is_some()));
        put_blob(out, op.key());
        if let Some(value) = op.value() {
            put_blob(out, value);
        }
    }
}

/// Decodes a key-value batch that fills the rest of a record.
pub(crate) fn decode_kv_batch(mut reader: Reader<'_>) -> Result<KvBatch> {
    let mut batch = KvBatch::default();
    while !reader.is_empty() {
        let put = reader.u8()? != 0;
        let key = reader.blob()?;
        batch.ops.push(if put { KvOp::Put { key, value: reader.blob()? } } else { KvOp::Delete { key } });
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_in_a_sealed_record_is_found() {
        let record = seal(b"what a replica promised");
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            unseal(damaged.into(), "a record").expect_err("one bit differs");
        }
        assert_eq!(unseal(record.into(), "a record").expect("intact"), &b"what a replica promised"[..]);
    }

    #[test]
    fn a_log_batch_survives_encoding() {
        let mut batch = LogBatch::default();
        let entry = |index| LogEntry {
            index: LogIndex(index),
            term: Term(3),
            kind: 1,
            data: Bytes::from_static(b"payload"),
        };
        let state = ReplicaLogState {
            shard: ShardId(9),
            term: Term(3),
            vote: Some(ReplicaId(4)),
            commit: LogIndex(6),
            generation: Generation(2),
            truncated_index: LogIndex(5),
            truncated_term: Term(2),
            membership: Bytes::from_static(b"members"),
        };
        let writes = ReplicaWrites {
            clean: true,
            entries: vec![entry(6), entry(7)],
            state: Some(state),
            compact_to: Some(LogIndex(5)),
        };
        batch.replicas.push((ReplicaId(4), writes));
        batch.node.push(("identity".to_owned(), Bytes::from_static(b"n1")));
        let decoded = decode_log_batch(encode_log_batch(&batch).into()).expect("just encoded");
        assert_eq!(format!("{decoded:?}"), format!("{batch:?}"));
    }

    #[test]
    fn a_record_cut_short_is_a_fault() {
        let mut out = Vec::new();
        put_blob(&mut out, b"key");
        out.pop();
        Reader::new(out.into(), "a record").blob().expect_err("one byte is missing");
    }
}
