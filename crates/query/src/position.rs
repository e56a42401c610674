//! Where a read stands, said so that a fresh executor can go on behind it: on another replica of the shard, or on a shard
//! that took over some or all of its documents.
//!
//! Made by `execute` and taken by `plan` and `execute`; travels between nodes as bytes. Always holds: whether a document
//! was given before follows from the document, the read's filter and sort, and the position. It does not depend on what
//! else is in the shard: a position names the indexes of its access together with the arrays that they had met, since
//! those decide the bounds of a scan. `skip` and `limit` are no part of a position: who continues a read asks for what is
//! still wanted of it.

use base::limits::KEY_BYTES_MAX;
use base::{Error, IndexId, Result};
use bytes::{BufMut, Bytes};
use storage::Direction;

use crate::plan::{Access, IndexAccess};

/// The version of the encoding.
const VERSION: u8 = 1;
const AT_START: u8 = 0;
const IN_DOCUMENTS: u8 = 1;
const IN_INDEX: u8 = 2;
const IN_UNION: u8 = 3;
const IN_SORT: u8 = 4;

/// Everything that a read has given out so far. Opaque: `encode` and `decode` carry it to another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position(pub(crate) Place);

/// What a position says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing was given.
    #[default]
    Start,
    /// A scan gave its documents as it found them.
    Scan(ScanPlace),
    /// A sort gave its documents in the order of their ranks, whatever their access was.
    Sort(Rank),
}

/// Where a scan stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScanPlace {
    pub(crate) scanned: Scanned,
    pub(crate) direction: Direction,
    pub(crate) mark: Mark,
}

/// What a scan visits, as far as the read's filter does not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scanned {
    /// Documents in `_id` order: all of them, a range or one.
    Documents,
    Index(UsedIndex),
    /// Each index serves one branch of the filter's `$or` with this number.
    Union {
        or: u16,
        indexes: Vec<UsedIndex>,
    },
}

/// An index as the plan saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UsedIndex {
    pub(crate) id: IndexId,
    /// For each field, where arrays had been met.
    pub(crate) multikey: Vec<Vec<u16>>,
}

/// The entry under which the last given document was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The branch of a union; else zero.
    pub(crate) branch: u16,
    /// The key of the index entry, or of the document where documents are scanned.
    pub(crate) key: Bytes,
}

/// What sorted documents are ordered by: equal sort keys by the document's key, on every replica and under every plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) sort_key: Bytes,
    pub(crate) document_key: Bytes,
}

impl Position {
    /// The start of a read.
    pub fn start() -> Position {
        Position::default()
    }

    /// The position behind the document that `access` found at `mark`.
    pub(crate) fn in_scan(access: &Access, mark: &Mark) -> Position {
        let (scanned, direction) = match access {
            Access::Nothing | Access::Document { .. } => (Scanned::Documents, Direction::Forward),
            Access::Collection { direction } => (Scanned::Documents, *direction),
            Access::Index(access) if access.is_on_id() => (Scanned::Documents, access.direction),
            Access::Index(access) => (Scanned::Index(UsedIndex::of(access)), access.direction),
            Access::Union { or, accesses } => {
                let indexes = accesses.iter().map(UsedIndex::of).collect();
                (Scanned::Union { or: *or, indexes }, Direction::Forward)
            }
        };
        Position(Place::Scan(ScanPlace { scanned, direction, mark: mark.clone() }))
    }

    /// The bytes that `decode` reads.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        match &self.0 {
            Place::Start => out.push(AT_START),
            Place::Scan(place) => place.encode(&mut out),
            Place::Sort(rank) => {
                out.push(IN_SORT);
                put_bytes(&mut out, &rank.sort_key);
                put_bytes(&mut out, &rank.document_key);
            }
        }
        out.into()
    }

    /// Reads what `encode` wrote. Fails with `FailedToParse` (9) on anything else; holds no more than the bytes do.
    pub fn decode(bytes: &[u8]) -> Result<Position> {
        let mut reader = Reader { rest: bytes };
        let place = reader.place().filter(|_| reader.rest.is_empty());
        place.map(Position).ok_or_else(|| Error::failed_to_parse("The position of a read does not decode"))
    }
}

impl UsedIndex {
    fn of(access: &IndexAccess) -> UsedIndex {
        UsedIndex { id: access.index.spec.id, multikey: access.index.multikey.clone() }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.id.get());
        out.put_u16(length(self.multikey.len()));
        for components in &self.multikey {
            out.put_u16(length(components.len()));
            components.iter().for_each(|component| out.put_u16(*component));
        }
    }
}

impl ScanPlace {
    fn encode(&self, out: &mut Vec<u8>) {
        match &self.scanned {
            Scanned::Documents => out.push(IN_DOCUMENTS),
            Scanned::Index(index) => {
                out.push(IN_INDEX);
                index.encode(out);
            }
            Scanned::Union { or, indexes } => {
                out.push(IN_UNION);
                out.put_u16(*or);
                out.put_u16(length(indexes.len()));
                indexes.iter().for_each(|index| index.encode(out));
            }
        }
        out.push(u8::from(self.direction == Direction::Reverse));
        out.put_u16(self.mark.branch);
        put_bytes(out, &self.mark.key);
    }
}

/// A length that the limits on indexes and plans keep small.
fn length(length: usize) -> u16 {
    u16::try_from(length).expect("an index has few fields, a path few components, a union few branches")
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("a key is shorter than 4 GiB"));
    out.put_slice(bytes);
}

/// Bytes still to be read. Every read is `None` when they do not suffice.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn place(&mut self) -> Option<Place> {
        if self.u8()? != VERSION {
            return None;
        }
        let scanned = match self.u8()? {
            AT_START => return Some(Place::Start),
            IN_SORT => {
                let (sort_key, document_key) = (self.bytes()?, self.key()?);
                return Some(Place::Sort(Rank { sort_key, document_key }));
            }
            IN_DOCUMENTS => Scanned::Documents,
            IN_INDEX => Scanned::Index(self.index()?),
            IN_UNION => {
                let or = self.u16()?;
                Scanned::Union { or, indexes: self.list(Reader::index)? }
            }
            _ => return None,
        };
        let direction = match self.u8()? {
            0 => Direction::Forward,
            1 => Direction::Reverse,
            _ => return None,
        };
        let branches = if let Scanned::Union { indexes, .. } = &scanned { indexes.len() } else { 1 };
        let mark = Mark { branch: self.u16()?, key: self.key()? };
        (usize::from(mark.branch) < branches).then_some(Place::Scan(ScanPlace { scanned, direction, mark }))
    }

    fn index(&mut self) -> Option<UsedIndex> {
        let id = IndexId(self.u32()?);
        let multikey = self.list(|reader| reader.list(Reader::u16))?;
        Some(UsedIndex { id, multikey })
    }

    /// A count, then as many items: no room is made before they are there.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u16()?;
        (0..count).map(|_| item(self)).collect()
    }

    /// A key of the store.
    fn key(&mut self) -> Option<Bytes> {
        self.bytes().filter(|key| key.len() <= KEY_BYTES_MAX)
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Bytes::copy_from_slice(bytes))
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: [u8; 1]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn positions() -> Vec<Position> {
        let index = |id, components: &[u16]| UsedIndex {
            id: IndexId(id),
            multikey: vec![components.to_vec(), vec![]],
        };
        let scanned = [
            Scanned::Documents,
            Scanned::Index(index(7, &[0, 2])),
            Scanned::Union { or: 1, indexes: vec![index(3, &[]), index(0, &[1])] },
        ];
        let scans = scanned.into_iter().map(|scanned| {
            let branch = u16::from(matches!(scanned, Scanned::Union { .. }));
            let mark = Mark { branch, key: Bytes::from_static(b"dkey") };
            Place::Scan(ScanPlace { scanned, direction: Direction::Reverse, mark })
        });
        let rank = Rank { sort_key: Bytes::from_static(b"sort"), document_key: Bytes::from_static(b"d1") };
        scans.chain([Place::Start, Place::Sort(rank)]).map(Position).collect()
    }

    #[test]
    fn a_position_reads_back_and_any_part_of_its_bytes_is_refused() {
        for position in positions() {
            let bytes = position.encode();
            assert_eq!(Position::decode(&bytes), Ok(position));
            for length in 0..bytes.len() {
                assert!(Position::decode(&bytes[..length]).is_err());
            }
            assert!(Position::decode(&[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn a_key_that_no_store_can_hold_is_refused() {
        let key = Bytes::from(vec![b'd'; KEY_BYTES_MAX + 1]);
        let rank = Rank { sort_key: key.clone(), document_key: key };
        assert!(Position::decode(&Position(Place::Sort(rank)).encode()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0_u8..6) {
            let _ = Position::decode(&bytes);
            let likely = [&[VERSION, kind][..], &bytes].concat();
            if let Ok(position) = Position::decode(&likely) {
                prop_assert_eq!(Position::decode(&position.encode()), Ok(position));
            }
        }
    }
}
