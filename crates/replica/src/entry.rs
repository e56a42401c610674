//! What a Raft entry of a shard carries: the commit timestamp and the changes of keys, checksummed.
//!
//! The owner loop builds entries with [`EntryBuilder`]; the apply side reads them with [`decode`]. Byte for byte it is
//! described in `docs/FORMATS.md`. An entry without any data is the one that a leader writes first in its term.
//! Nothing here knows what keys and values mean.

use base::Timestamp;
use bytes::Bytes;
use storage::{Fault, KvBatch, KvOp};

/// The version that [`EntryBuilder`] writes and the only one that [`decode`] reads.
pub const VERSION: u8 = 1;
/// Bytes before the first change: version, checksum, timestamp.
const HEADER_BYTES: usize = 1 + 4 + 8;
const CHECKSUM_END: usize = 1 + 4;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// An entry as read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The newest commit timestamp among the commands in the entry.
    pub timestamp: Timestamp,
    /// What to apply. Keys and values share the entry's memory.
    pub batch: KvBatch,
}

/// Collects the changes of many commands into one entry.
#[derive(Debug)]
pub struct EntryBuilder {
    bytes: Vec<u8>,
}

impl Default for EntryBuilder {
    fn default() -> EntryBuilder {
        EntryBuilder { bytes: vec![0; HEADER_BYTES] }
    }
}

impl EntryBuilder {
    /// Adds the changes of one command.
    pub fn push(&mut self, batch: &KvBatch) {
        self.bytes.reserve(batch.size_bytes() + batch.ops.len() * 8);
        for op in &batch.ops {
            match op {
                KvOp::Put { key, value } => {
                    self.bytes.push(PUT);
                    self.push_slice(key);
                    self.push_slice(value);
                }
                KvOp::Delete { key } => {
                    self.bytes.push(DELETE);
                    self.push_slice(key);
                }
            }
        }
    }

    /// Whether no change was added.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES
    }

    /// Bytes of the entry so far.
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The finished entry.
    pub fn finish(mut self, timestamp: Timestamp) -> Vec<u8> {
        let (header, changes) = self.bytes.split_at_mut(HEADER_BYTES);
        let (checked, stamp) = header.split_at_mut(CHECKSUM_END);
        stamp.copy_from_slice(&timestamp.to_u64().to_be_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(stamp);
        hasher.update(changes);
        let (version, checksum) = checked.split_at_mut(1);
        version.copy_from_slice(&[VERSION]);
        checksum.copy_from_slice(&hasher.finalize().to_le_bytes());
        self.bytes
    }

    fn push_slice(&mut self, slice: &[u8]) {
        let mut rest = slice.len();
        while rest >= 0x80 {
            self.bytes.push((rest & 0x7F) as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
        self.bytes.extend_from_slice(slice);
    }
}

/// Reads an entry. Faults when its version, checksum or structure is wrong.
pub fn decode(data: &Bytes) -> storage::Result<Entry> {
    let timestamp = check_header(data)?;
    let mut reader = Reader { data, at: HEADER_BYTES };
    let mut batch = KvBatch::default();
    while reader.at < data.len() {
        let op = match reader.byte()? {
            PUT => KvOp::Put { key: reader.slice()?, value: reader.slice()? },
            DELETE => KvOp::Delete { key: reader.slice()? },
            tag => return Err(Fault::corruption(format!("a Raft entry has a change of unknown kind {tag}"))),
        };
        batch.ops.push(op);
    }
    Ok(Entry { timestamp, batch })
}

/// Checks an entry's version and checksum, and returns its commit timestamp.
pub fn check_header(data: &[u8]) -> storage::Result<Timestamp> {
    let cut = || Fault::corruption(format!("a Raft entry is cut short at {} bytes", data.len()));
    let (version, rest) = data.split_first().ok_or_else(cut)?;
    if *version != VERSION {
        return Err(Fault::corruption(format!(
            "a Raft entry has version {version}; this build reads {VERSION}"
        )));
    }
    let (checksum, checked) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let (stamp, _) = checked.split_first_chunk::<8>().ok_or_else(cut)?;
    if crc32fast::hash(checked) != u32::from_le_bytes(*checksum) {
        return Err(Fault::corruption("a Raft entry fails its checksum"));
    }
    Ok(Timestamp::from_u64(u64::from_be_bytes(*stamp)))
}

struct Reader<'a> {
    data: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> storage::Result<u8> {
        let byte = self.data.get(self.at).copied().ok_or_else(structure)?;
        self.at += 1;
        Ok(byte)
    }

    fn slice(&mut self) -> storage::Result<Bytes> {
        let mut len = 0usize;
        for shift in (0..=28).step_by(7) {
            let byte = self.byte()?;
            len |= usize::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                let end =
                    self.at.checked_add(len).filter(|&end| end <= self.data.len()).ok_or_else(structure)?;
                let slice = self.data.slice(self.at..end);
                self.at = end;
                return Ok(slice);
            }
        }
        Err(structure())
    }
}

fn structure() -> Fault {
    Fault::corruption("a Raft entry passes its checksum but its structure is wrong")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn op() -> impl Strategy<Value = KvOp> {
        let bytes = |max: usize| prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from);
        prop_oneof![
            (bytes(20), bytes(400)).prop_map(|(key, value)| KvOp::Put { key, value }),
            bytes(20).prop_map(|key| KvOp::Delete { key }),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_reads_back_as_written(ops in prop::collection::vec(op(), 0..20), stamp: u64) {
            let batch = KvBatch { ops };
            let mut builder = EntryBuilder::default();
            builder.push(&batch);
            let timestamp = Timestamp::from_u64(stamp);
            let entry = decode(&builder.finish(timestamp).into()).expect("just written");
            prop_assert_eq!(entry, Entry { timestamp, batch });
        }

        #[test]
        fn an_entry_with_any_byte_changed_or_its_tail_cut_is_refused(
            ops in prop::collection::vec(op(), 1..5), at: prop::sample::Index, flip in 1u8..,
        ) {
            let mut builder = EntryBuilder::default();
            builder.push(&KvBatch { ops });
            let good = builder.finish(Timestamp::default());
            let at = at.index(good.len());
            let mut bad = good.clone();
            if let Some(byte) = bad.get_mut(at) {
                *byte ^= flip;
            }
            prop_assert!(decode(&bad.into()).is_err());
            prop_assert!(decode(&Bytes::from(good).slice(..at)).is_err());
        }
    }
}
