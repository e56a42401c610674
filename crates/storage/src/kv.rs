//! Keys, values and batches of them: what a Raft entry carries and what the store applies. Nothing here knows BSON.

use bytes::Bytes;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvOp {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes a key; no error when it is absent.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl KvOp {
    /// The key that changes.
    pub fn key(&self) -> &Bytes {
        match self {
            KvOp::Put { key, .. } | KvOp::Delete { key } => key,
        }
    }

    /// The key's new value; `None` when it is removed.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            KvOp::Put { value, .. } => Some(value),
            KvOp::Delete { .. } => None,
        }
    }
}

/// Changes applied atomically, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvBatch {
    /// The changes; a later one of the same key wins.
    pub ops: Vec<KvOp>,
}

impl KvBatch {
    /// Adds a put.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(KvOp::Put { key: key.into(), value: value.into() });
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.ops.push(KvOp::Delete { key: key.into() });
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of all keys and values.
    pub fn size_bytes(&self) -> usize {
        self.ops.iter().map(|op| op.key().len() + op.value().map_or(0, Bytes::len)).sum()
    }
}

/// Which way a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Reverse,
}

/// Keys from `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub start: Bytes,
    /// First key after the range; `None` for no end.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// Keys from `start` to before `end`.
    pub fn new(start: impl Into<Bytes>, end: impl Into<Bytes>) -> KeyRange {
        KeyRange { start: start.into(), end: Some(end.into()) }
    }

    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> KeyRange {
        let start = prefix.into();
        KeyRange { end: prefix_end(&start), start }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// Whether no key can lie in the range.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// The first key after all that start with `prefix`; `None` when there is none (all bytes 0xFF).
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut end = prefix.get(..=kept)?.to_vec();
    *end.last_mut()? += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_range_holds_exactly_the_keys_with_the_prefix() {
        let range = KeyRange::prefix(&b"a\xff"[..]);
        assert!(range.contains(b"a\xff") && range.contains(b"a\xff\xff\xff"));
        assert!(!range.contains(b"a\xfe") && !range.contains(b"b"));
        assert_eq!(KeyRange::prefix(&b"\xff\xff"[..]).end, None);
    }
}
