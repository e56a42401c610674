//! What a session's newest transaction did, and how that is stored.
//!
//! The statements of a transaction are stored in pages by their numbers, each under a key of its own, so that a write stores
//! what is near its statements and not the whole of a large batch again. The first page is always there and says which
//! transaction is the newest, and whether it has other pages; those of an older transaction mean nothing and are overwritten
//! or expire. Called by `retry` and by the evaluation of writes. Always holds: where a page of the newest transaction is
//! stored, so is the first page, which says that there are others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{Code, Error, SessionId};
use bson::Bson;
use bytes::Bytes;
use document::{DocBuf, DocRef, RawDoc};
use storage::{Direction, Result};

use super::{Outcome, Reader};
use crate::encoding::{self, RetryKey};

/// Statements of a page. A power of two.
const PAGE_STATEMENTS: i32 = 1_024;

/// A session's newest transaction number and what its statements did.
#[derive(Clone, Debug)]
pub(super) struct RetryRecord {
    /// The transaction number.
    txn: i64,
    pages: BTreeMap<i32, Arc<Runs>>,
    /// Pages that are not stored as they are here.
    changed: BTreeSet<i32>,
    /// Whether the first page was stored, and says that there are others.
    says_more: Option<bool>,
}

/// The outcomes of a page's statements.
type Runs = Vec<Run>;

/// Consecutive statements with the same outcome; one statement when the outcome is more than counts.
#[derive(Clone, Debug, PartialEq)]
struct Run {
    first: i32,
    count: u32,
    outcome: Outcome,
    /// The last document that a statement of many dealt with, while there may be more of them.
    position: Option<Bytes>,
}

impl Run {
    fn last(&self) -> i32 {
        let count = i32::try_from(self.count).unwrap_or(i32::MAX);
        self.first.saturating_add(count.saturating_sub(1))
    }

    /// The same, cut where pages end.
    fn by_page(&self) -> Vec<Run> {
        let mut parts: Vec<Run> = Vec::new();
        for number in page_of(self.first)..=page_of(self.last()) {
            let first = self.first.max(number * PAGE_STATEMENTS);
            let last = self.last().min(number * PAGE_STATEMENTS + (PAGE_STATEMENTS - 1));
            parts.push(Run { first, count: last.abs_diff(first) + 1, ..self.clone() });
        }
        parts
    }
}

/// What is stored under one key.
pub(super) struct RetryPage {
    /// The transaction number.
    pub(super) txn: i64,
    /// Wall time of the last write, in milliseconds since the Unix epoch.
    pub(super) wall_ms: i64,
    /// Of a first page: whether the transaction has others.
    has_more: bool,
    runs: Arc<Runs>,
}

fn page_of(stmt_id: i32) -> i32 {
    stmt_id.div_euclid(PAGE_STATEMENTS)
}

impl RetryRecord {
    pub(super) fn new(txn: i64) -> RetryRecord {
        RetryRecord { txn, pages: BTreeMap::new(), changed: BTreeSet::new(), says_more: None }
    }

    /// What one page says.
    pub(super) fn of_page(number: i32, page: RetryPage) -> RetryRecord {
        let says_more = (number == 0).then_some(page.has_more);
        let pages = BTreeMap::from([(number, page.runs)]);
        let mut record = RetryRecord { txn: page.txn, pages, changed: BTreeSet::new(), says_more };
        record.part_first_page();
        record
    }

    /// Before there were pages, the first held all statements.
    fn part_first_page(&mut self) {
        let reaches_out = |run: &Run| page_of(run.first) != 0 || page_of(run.last()) != 0;
        let Some(runs) = self.pages.get(&0).filter(|runs| runs.iter().any(reaches_out)).cloned() else {
            return;
        };
        self.pages.clear();
        for part in runs.iter().flat_map(Run::by_page) {
            let number = page_of(part.first);
            self.changed.insert(number);
            Arc::make_mut(self.pages.entry(number).or_default()).push(part);
        }
        self.changed.insert(0);
    }

    /// Reads the session's newest record.
    pub(super) fn read(reader: &dyn Reader, session: SessionId) -> Result<Option<RetryRecord>> {
        let key = encoding::retry_key(session, 0);
        let Some(value) = reader.get(&key)? else { return Ok(None) };
        let mut record = RetryRecord::of_page(0, RetryPage::decode(&key, &value)?);
        if record.says_more != Some(true) {
            return Ok(Some(record));
        }
        for pair in reader.scan(encoding::retry_range_of(session), Direction::Forward) {
            let (key, value) = pair?;
            if let RetryKey { page: number, origin: None, .. } = encoding::parse_retry_key(&key)? {
                record.add_page(number, RetryPage::decode(&key, &value)?);
            }
        }
        Ok(Some(record))
    }

    fn add_page(&mut self, number: i32, page: RetryPage) {
        if page.txn == self.txn {
            self.pages.insert(number, page.runs);
        }
    }

    /// The record, if it is about this transaction; `None` when the transaction is newer. Fails when it is older.
    pub(super) fn of_transaction(self, session: SessionId, txn: i64) -> base::Result<Option<RetryRecord>> {
        match self.txn.cmp(&txn) {
            std::cmp::Ordering::Less => Ok(None),
            std::cmp::Ordering::Equal => Ok(Some(self)),
            std::cmp::Ordering::Greater => Err(too_old(session, txn, self.txn)),
        }
    }

    /// What the statement did, if it was executed.
    pub(super) fn outcome(&self, stmt_id: i32) -> Option<&Outcome> {
        let run = self.pages.get(&page_of(stmt_id))?.iter().find(|run| {
            let offset = i64::from(stmt_id) - i64::from(run.first);
            (0..i64::from(run.count)).contains(&offset)
        })?;
        Some(&run.outcome)
    }

    /// The last document that the statement dealt with, when it may go on behind it.
    pub(super) fn position(&self, stmt_id: i32) -> Option<&Bytes> {
        let page = self.pages.get(&page_of(stmt_id))?;
        page.iter().find(|run| run.first == stmt_id)?.position.as_ref()
    }

    /// Adds or replaces the outcome so far of a statement that goes on behind `position`.
    pub(super) fn add_partial(&mut self, stmt_id: i32, outcome: &Outcome, position: Bytes) {
        let runs = self.runs_without_partial(stmt_id);
        runs.push(Run { first: stmt_id, count: 1, outcome: outcome.clone(), position: Some(position) });
    }

    /// The runs of the statement's page, for a change.
    fn runs_without_partial(&mut self, stmt_id: i32) -> &mut Runs {
        let number = page_of(stmt_id);
        self.changed.insert(number);
        let runs = Arc::make_mut(self.pages.entry(number).or_default());
        runs.retain(|run| run.first != stmt_id || run.position.is_none());
        runs
    }

    /// Adds a statement's outcome.
    pub(super) fn add(&mut self, stmt_id: i32, outcome: &Outcome) {
        let runs = self.runs_without_partial(stmt_id);
        if let Some(last) = runs.last_mut()
            && i64::from(last.first) + i64::from(last.count) == i64::from(stmt_id)
            && is_counts_only(outcome)
            && last.outcome == *outcome
            && last.position.is_none()
        {
            last.count += 1;
            return;
        }
        runs.push(Run { first: stmt_id, count: 1, outcome: outcome.clone(), position: None });
    }

    /// The pages that have to be stored, by their keys, for a write of the session at `wall_ms`. From here on they count as
    /// stored.
    pub(super) fn store(&mut self, session: SessionId, wall_ms: i64) -> Vec<(Vec<u8>, Bytes)> {
        let has_more = self.pages.keys().any(|number| *number != 0);
        if self.says_more.replace(has_more) != Some(has_more) {
            self.changed.insert(0);
        }
        let stored = |number: i32| {
            let runs = self.pages.get(&number).cloned().unwrap_or_default();
            let page = RetryPage { txn: self.txn, wall_ms, has_more: number == 0 && has_more, runs };
            (encoding::retry_key(session, number), page.encode())
        };
        std::mem::take(&mut self.changed).into_iter().map(stored).collect()
    }
}

impl RetryPage {
    /// The stored form.
    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(16 + 9 * self.runs.len());
        out.extend_from_slice(&self.txn.to_le_bytes());
        out.extend_from_slice(&self.wall_ms.to_le_bytes());
        if self.has_more {
            encode_run_head(0, 0, &mut out);
            out.push(KIND_MORE_PAGES);
        }
        for run in self.runs.iter() {
            encode_run_head(run.first, run.count, &mut out);
            if let Some(position) = &run.position {
                out.push(KIND_PARTIAL);
                let length = u32::try_from(position.len()).expect("a document's key is short");
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(position);
            }
            encode_outcome(&run.outcome, &mut out);
        }
        encoding::encode_record(&out)
    }

    /// Reads the stored form.
    pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<RetryPage> {
        let body = encoding::decode_record(key, value)?;
        parse(&mut Cursor(body)).ok_or_else(|| encoding::damaged(key, "is not a retry record"))
    }
}

fn encode_run_head(first: i32, count: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
}

fn too_old(session: SessionId, txn: i64, newest: i64) -> Error {
    let message = format!(
        "Retryable write with txnNumber {txn} is prohibited on session {session:?} because a newer retryable write \
         with txnNumber {newest} has already started on this session."
    );
    Error::new(Code::TRANSACTION_TOO_OLD, message)
}

fn is_counts_only(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Inserted => true,
        Outcome::Updated { upserted, document, .. } => upserted.is_none() && document.is_none(),
        Outcome::Deleted { document, .. } => document.is_none(),
        Outcome::LostCandidate => false,
    }
}

const KIND_INSERTED: u8 = 0;
const KIND_UPDATED: u8 = 1;
const KIND_DELETED: u8 = 2;
/// Stands before the kind of an outcome that may go on, with the position behind which it does.
const KIND_PARTIAL: u8 = 3;
/// In the place of a run: the transaction has other pages.
const KIND_MORE_PAGES: u8 = 4;

fn encode_outcome(outcome: &Outcome, out: &mut Vec<u8>) {
    match outcome {
        Outcome::Inserted => out.push(KIND_INSERTED),
        Outcome::Updated { matched, modified, upserted, document } => {
            out.push(KIND_UPDATED);
            out.extend_from_slice(&matched.to_le_bytes());
            out.extend_from_slice(&modified.to_le_bytes());
            let upserted = upserted.as_ref().map(|id| {
                let document = bson::doc! { "_id": id.clone() };
                DocBuf::encode(&document).expect("an _id that was stored encodes")
            });
            encode_document(upserted.as_ref(), out);
            encode_document(document.as_ref(), out);
        }
        Outcome::Deleted { deleted, document } => {
            out.push(KIND_DELETED);
            out.extend_from_slice(&deleted.to_le_bytes());
            encode_document(document.as_ref(), out);
        }
        Outcome::LostCandidate => unreachable!("a statement without an outcome is not recorded"),
    }
}

fn encode_document(document: Option<&DocBuf>, out: &mut Vec<u8>) {
    out.push(u8::from(document.is_some()));
    if let Some(document) = document {
        out.extend_from_slice(document.bytes());
    }
}

/// Reads a record's body from front to back; `None` where it is cut short.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn document(&mut self) -> Option<Option<DocBuf>> {
        if self.fixed::<1>()? == [0] {
            return Some(None);
        }
        let length = usize::try_from(i32::from_le_bytes(*self.0.first_chunk()?)).ok()?;
        let (document, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(DocBuf::from_validated(Bytes::copy_from_slice(document))))
    }
}

fn parse(cursor: &mut Cursor<'_>) -> Option<RetryPage> {
    let (txn, wall_ms) = (i64::from_le_bytes(cursor.fixed()?), i64::from_le_bytes(cursor.fixed()?));
    let (mut runs, mut has_more) = (Runs::new(), false);
    while !cursor.0.is_empty() {
        let first = i32::from_le_bytes(cursor.fixed()?);
        let count = u32::from_le_bytes(cursor.fixed()?);
        if *cursor.0.first()? == KIND_MORE_PAGES {
            cursor.fixed::<1>()?;
            has_more = true;
            continue;
        }
        let position = parse_position(cursor)?;
        runs.push(Run { first, count, outcome: parse_outcome(cursor)?, position });
    }
    Some(RetryPage { txn, wall_ms, has_more, runs: Arc::new(runs) })
}

/// The position of an outcome that may go on; `None` inside where the outcome is complete.
fn parse_position(cursor: &mut Cursor<'_>) -> Option<Option<Bytes>> {
    if *cursor.0.first()? != KIND_PARTIAL {
        return Some(None);
    }
    cursor.fixed::<1>()?;
    let length = usize::try_from(u32::from_le_bytes(cursor.fixed()?)).ok()?;
    let (position, rest) = cursor.0.split_at_checked(length)?;
    cursor.0 = rest;
    Some(Some(Bytes::copy_from_slice(position)))
}

fn parse_outcome(cursor: &mut Cursor<'_>) -> Option<Outcome> {
    let [kind] = cursor.fixed()?;
    Some(match kind {
        KIND_INSERTED => Outcome::Inserted,
        KIND_UPDATED => {
            let matched = u64::from_le_bytes(cursor.fixed()?);
            let modified = u64::from_le_bytes(cursor.fixed()?);
            let upserted = cursor.document()?.and_then(|document| id_of(document.as_raw()));
            Outcome::Updated { matched, modified, upserted, document: cursor.document()? }
        }
        KIND_DELETED => {
            let deleted = u64::from_le_bytes(cursor.fixed()?);
            Outcome::Deleted { deleted, document: cursor.document()? }
        }
        _ => return None,
    })
}

fn id_of(document: RawDoc<'_>) -> Option<Bson> {
    DocRef::Raw(document).get("_id").map(|id| id.to_bson())
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use storage::KeyRange;

    use super::*;

    const SESSION: SessionId = SessionId([7; 16]);

    /// What records have stored.
    #[derive(Default)]
    struct Stored {
        pairs: BTreeMap<Bytes, Bytes>,
        written_bytes: usize,
    }

    impl Reader for Stored {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
            Ok(self.pairs.get(key).cloned())
        }

        fn scan<'a>(
            &'a self,
            range: KeyRange,
            _: Direction,
        ) -> Box<dyn Iterator<Item = Result<(Bytes, Bytes)>> + 'a> {
            let inside = self.pairs.iter().filter(move |(key, _)| range.contains(key));
            Box::new(inside.map(|(key, value)| Ok((key.clone(), value.clone()))))
        }
    }

    impl Stored {
        /// Stores what a write changed; the pages that took.
        fn store(&mut self, record: &mut RetryRecord, wall_ms: i64) -> Vec<i32> {
            let note = |(key, value): (Vec<u8>, Bytes)| {
                self.written_bytes += value.len();
                let page = encoding::parse_retry_key(&key).expect("a retry record's key").page;
                self.pairs.insert(key.into(), value);
                page
            };
            record.store(SESSION, wall_ms).into_iter().map(note).collect()
        }

        fn read(&self) -> RetryRecord {
            RetryRecord::read(self, SESSION).expect("intact").expect("stored")
        }
    }

    fn stored_and_read(record: &mut RetryRecord) -> RetryRecord {
        let mut stored = Stored::default();
        stored.store(record, 0);
        stored.read()
    }

    #[test]
    fn a_record_reads_back_with_every_kind_of_outcome() {
        let document = DocBuf::encode(&doc! { "_id": 1, "n": 2 }).expect("encodes");
        let outcomes = [
            Outcome::Inserted,
            Outcome::Updated { matched: 1, modified: 0, upserted: None, document: Some(document.clone()) },
            Outcome::Updated { matched: 0, modified: 0, upserted: Some(Bson::Int64(7)), document: None },
            Outcome::Deleted { deleted: 1, document: Some(document) },
            Outcome::Deleted { deleted: 0, document: None },
        ];
        for start in [0, PAGE_STATEMENTS - 2, i32::MAX - 6, -2] {
            let mut record = RetryRecord::new(5);
            for (stmt_id, outcome) in (start..).zip(&outcomes) {
                record.add(stmt_id, outcome);
            }
            let back = stored_and_read(&mut record);
            for (stmt_id, outcome) in (start..).zip(&outcomes) {
                assert_eq!(back.outcome(stmt_id), Some(outcome), "statement {stmt_id}");
            }
            assert_eq!(back.outcome(start + 5), None);
        }
    }

    #[test]
    fn a_statement_of_many_documents_keeps_its_position_until_it_is_complete() {
        let done = |deleted| Outcome::Deleted { deleted, document: None };
        for first in [0, 2 * PAGE_STATEMENTS] {
            let (one, two) = (first, first + 1);
            let mut record = RetryRecord::new(1);
            record.add(one, &done(1));
            record.add_partial(two, &done(500), Bytes::from_static(b"k500"));
            record.add_partial(two, &done(900), Bytes::from_static(b"k900"));
            let back = stored_and_read(&mut record);
            let position = Bytes::from_static(b"k900");
            assert_eq!((back.outcome(two), back.position(two)), (Some(&done(900)), Some(&position)));
            record.add(two, &done(901));
            record.changed.extend(record.pages.keys());
            record.changed.insert(0);
            let back = stored_and_read(&mut record);
            assert_eq!((back.outcome(two), back.position(two)), (Some(&done(901)), None));
            assert_eq!(back.outcome(one), Some(&done(1)));
        }
    }

    #[test]
    fn consecutive_statements_with_equal_counts_share_a_run() {
        let (mut record, mut stored) = (RetryRecord::new(1), Stored::default());
        for stmt_id in 0..100_000 {
            record.add(stmt_id, &Outcome::Inserted);
        }
        assert_eq!(stored.store(&mut record, 0).len(), 98);
        assert!(stored.written_bytes < 98 * 64, "{} bytes", stored.written_bytes);
        let back = stored.read();
        assert_eq!(back.outcome(99_999), Some(&Outcome::Inserted));
        assert_eq!(back.outcome(100_000), None);
    }

    /// A shard's part of a large ordered batch: every twelfth statement, one write after the other.
    #[test]
    fn a_write_stores_what_is_near_its_statement_however_large_the_batch_is() {
        let (mut record, mut stored) = (RetryRecord::new(1), Stored::default());
        let statements: Vec<i32> = (0..100_000).step_by(12).collect();
        for stmt_id in &statements {
            record.add(*stmt_id, &Outcome::Inserted);
            assert!(stored.store(&mut record, 0).len() <= 2, "its page, and perhaps the first");
        }
        let mean = stored.written_bytes / statements.len();
        assert!(mean < 512, "a write stored {mean} bytes on average");
        let back = stored.read();
        assert!((0..100_000).all(|stmt_id| back.outcome(stmt_id).is_some() == (stmt_id % 12 == 0)));
    }

    #[test]
    fn a_record_that_was_stored_before_there_were_pages_is_read_as_pages() {
        let (page, outcome) = (PAGE_STATEMENTS, Outcome::Deleted { deleted: 7, document: None });
        let run = |first, count, position| Run { first, count, outcome: outcome.clone(), position };
        let position = Bytes::from_static(b"k7");
        let count = u32::try_from(3 * page).expect("small");
        let runs = Arc::new(vec![run(5, count, None), run(4 * page, 1, Some(position.clone()))]);
        let old = RetryPage { txn: 1, wall_ms: 0, has_more: false, runs };
        let mut stored = Stored::default();
        stored.pairs.insert(encoding::retry_key(SESSION, 0).into(), old.encode());
        let check = |record: &RetryRecord| {
            for known in [5, page - 1, page, 2 * page, 3 * page + 4] {
                assert_eq!(
                    (record.outcome(known), record.position(known)),
                    (Some(&outcome), None),
                    "{known}"
                );
            }
            assert_eq!(record.position(4 * page), Some(&position));
            for unknown in [4, 3 * page + 5, 4 * page + 1] {
                assert_eq!(record.outcome(unknown), None, "{unknown}");
            }
        };
        let mut record = stored.read();
        check(&record);
        assert_eq!(stored.store(&mut record, 1), [0, 1, 2, 3, 4]);
        check(&stored.read());
    }

    #[test]
    fn pages_of_an_older_transaction_mean_nothing() {
        let mut stored = Stored::default();
        let mut old = RetryRecord::new(1);
        for page in 0..4 {
            old.add(page * PAGE_STATEMENTS + 7, &Outcome::Inserted);
        }
        stored.store(&mut old, 0);
        let mut new = RetryRecord::new(2);
        new.add(PAGE_STATEMENTS + 8, &Outcome::Inserted);
        assert_eq!(stored.store(&mut new, 1), [0, 1]);
        let back = stored.read();
        assert_eq!(back.txn, 2);
        let known: Vec<i32> = (0..4 * PAGE_STATEMENTS).filter(|at| back.outcome(*at).is_some()).collect();
        assert_eq!(known, [PAGE_STATEMENTS + 8]);
    }
}
