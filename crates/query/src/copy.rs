//! What of a shard goes to those that are about to take its place: first a scan of its documents and retry records, then
//! whatever its notes say has changed.
//!
//! Called by the router on the node of the shard's leader, on one read view after the other. Pure. Always holds: a scan that
//! begins after the shard notes its changes, and then every note in order, give each target what it owns as of the last
//! view; a piece that is sent again does no harm, if whatever followed it is sent again too.

use base::{ShardId, Timestamp};
use bytes::Bytes;
use document::ShardKey;
use storage::{Direction, KeyRange, View};

use crate::Failure;
use crate::encoding;
use crate::state::{HashRange, Origin, Reached, ShardState};

/// Keys with their values of now; without one where there is none any more.
pub type Pairs = Vec<(Bytes, Option<Bytes>)>;

/// The way from a shard to its targets.
#[derive(Clone, Debug)]
pub struct Copy {
    source: ShardId,
    /// The fields that choose the target.
    shard_key: ShardKey,
    /// What each target owns.
    targets: Vec<HashRange>,
    /// Whether a document may belong to another target after an update.
    may_wander: bool,
}

/// How much of a shard goes into one piece.
#[derive(Clone, Copy, Debug)]
pub struct PieceSize {
    /// Most keys and notes to look at.
    pub keys_max: usize,
    /// Bytes of values from which no further key is taken.
    pub bytes_wanted: usize,
}

/// What goes to each target, in the order of the targets, and how far that brings them.
#[derive(Debug)]
pub struct Piece {
    /// For each target.
    pub pairs: Vec<Pairs>,
    /// How far copying has come with this piece.
    pub reached: Reached,
    /// How many keys and notes were looked at.
    pub examined: usize,
}

impl Copy {
    /// The way from `source`, in this state, to shards that own `targets` by `shard_key`.
    pub fn new(source: ShardId, state: &ShardState, shard_key: ShardKey, targets: Vec<HashRange>) -> Copy {
        let may_wander = !(shard_key.is_id() && state.shard_key.is_id());
        Copy { source, shard_key, targets, may_wander }
    }

    /// Whose retry records the target at `position` takes over with those of the source.
    pub fn origins(&self, state: &ShardState, position: usize) -> Vec<Origin> {
        let own = Origin {
            shard: self.source,
            range: state.hash_range,
            shard_key: state.shard_key.clone(),
            counts: true,
            counted: state.origins.iter().filter(|origin| origin.counts).map(|origin| origin.shard).collect(),
        };
        let all = state.origins.iter().cloned().chain([own]);
        all.map(|origin| Origin { counts: origin.counts && position == 0, ..origin }).collect()
    }

    /// The next piece of the scan. Fails with `ShardKeyNotFound` (61) where a document has an array in its shard key.
    pub fn scan(&self, view: &dyn View, reached: &Reached, size: PieceSize) -> Result<Piece, Failure> {
        let mut piece = self.piece(reached);
        let mut bytes = 0;
        for tag in [encoding::TAG_DOCUMENT, encoding::TAG_RETRY] {
            let Some(range) = rest_of(tag, &reached.scanned) else { continue };
            for pair in view.scan(range, Direction::Forward) {
                let (key, value) = pair?;
                bytes += value.len();
                piece.examined += 1;
                piece.reached.scanned = key.clone();
                self.put(&mut piece.pairs, key, value, false)?;
                if piece.examined >= size.keys_max || bytes >= size.bytes_wanted {
                    return Ok(piece);
                }
            }
        }
        piece.reached.all_scanned = true;
        Ok(piece)
    }

    /// What has changed since. Nothing was examined when nothing has.
    pub fn follow(&self, view: &dyn View, reached: &Reached, size: PieceSize) -> Result<Piece, Failure> {
        let mut piece = self.piece(reached);
        let mut bytes = 0;
        let mut sent = std::collections::BTreeSet::new();
        for pair in view.scan(encoding::notes_after(reached.followed), Direction::Forward) {
            let (key, value) = pair?;
            let (commit, changed) = encoding::decode_note(&key, &value)?;
            // All values are those of this view: once is enough.
            for key in changed.into_iter().filter(|key| sent.insert(key.clone())).collect::<Vec<_>>() {
                match view.get(&key)? {
                    Some(value) => {
                        bytes += value.len();
                        self.put(&mut piece.pairs, key, value, self.may_wander)?;
                    }
                    None => self.delete(&mut piece.pairs, &key)?,
                }
            }
            piece.examined += 1;
            piece.reached.followed = commit;
            if piece.examined >= size.keys_max || bytes >= size.bytes_wanted {
                break;
            }
        }
        Ok(piece)
    }

    fn piece(&self, reached: &Reached) -> Piece {
        Piece { pairs: vec![Vec::new(); self.targets.len()], reached: reached.clone(), examined: 0 }
    }

    /// A document goes to its owner, and is removed from others when it may be there; a retry record goes to all.
    fn put(&self, pairs: &mut [Pairs], key: Bytes, value: Bytes, wanders: bool) -> Result<(), Failure> {
        if key.first() != Some(&encoding::TAG_DOCUMENT) {
            let key = self.taken_key(key)?;
            pairs.iter_mut().for_each(|pairs| pairs.push((key.clone(), Some(value.clone()))));
            return Ok(());
        }
        let document = encoding::decode_document(&key, &value)?.document;
        let hash = self.shard_key.hash(document.as_doc())?;
        for (range, pairs) in self.targets.iter().zip(pairs) {
            if range.contains(hash) {
                pairs.push((key.clone(), Some(value.clone())));
            } else if wanders {
                pairs.push((key.clone(), None));
            }
        }
        Ok(())
    }

    /// Nobody knows any more where the document was.
    fn delete(&self, pairs: &mut [Pairs], key: &Bytes) -> Result<(), Failure> {
        let key = match key.first() == Some(&encoding::TAG_DOCUMENT) {
            true => key.clone(),
            false => self.taken_key(key.clone())?,
        };
        pairs.iter_mut().for_each(|pairs| pairs.push((key.clone(), None)));
        Ok(())
    }

    /// The key of a retry record as targets have it: with the shard that it comes from.
    fn taken_key(&self, key: Bytes) -> Result<Bytes, Failure> {
        Ok(match encoding::parse_retry_key(&key)?.origin {
            None => encoding::taken_retry_key(&key, self.source).into(),
            Some(_) => key,
        })
    }
}

/// Whether a shard has notes after `followed`.
pub fn has_notes_after(view: &dyn View, followed: Timestamp) -> Result<bool, Failure> {
    Ok(view.scan(encoding::notes_after(followed), Direction::Forward).next().transpose()?.is_some())
}

/// The keys with this tag behind `scanned`; `None` when those with a higher tag were scanned.
fn rest_of(tag: u8, scanned: &Bytes) -> Option<KeyRange> {
    let mut range = KeyRange::prefix(vec![tag]);
    match scanned.first() {
        Some(last) if *last > tag => return None,
        Some(last) if *last == tag => {
            let mut after = scanned.to_vec();
            after.push(0);
            range.start = after.into();
        }
        _ => {}
    }
    Some(range)
}
