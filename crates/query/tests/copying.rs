//! Shards whose place others take: notes, copying, retry records on the other side, and probes.

use std::collections::BTreeMap;

use base::{BootId, Code, CollectionId, Epoch, ReshardId, SessionId, ShardId, Term};
use bson::{Bson, Document, doc};
use document::{DocBuf, ShardKey};
use proptest::prelude::*;
use query::copy::{Copy, Piece, PieceSize};
use query::evaluate::{
    Ballot, Batch, ConfigChange, Fence, Outcome, Probe, ProbeReply, ReturnDocument, ShardCommand, ShardReply,
    Statement, StatementResult, WriteOp, WriteRequest,
};
use query::state::{Driver as Run, HashRange, Reached, ShardState, Source};

use crate::shard::{Shard, insert_op, request};

const RESHARD: ReshardId = ReshardId(1);
const SESSION: SessionId = SessionId([7; 16]);
const FIRST: Run = Run { term: Term(1), run: 1 };
const SMALL: PieceSize = PieceSize { keys_max: 3, bytes_wanted: 200 };

/// A shard's leader that copies it, as the router does.
struct Driver {
    source: ShardId,
    copy: Copy,
    reached: Reached,
    numbers: Vec<u64>,
}

impl Driver {
    /// Has the source note its changes, and begins at each target.
    fn begin(source: ShardId, from: &mut Shard, key: &ShardKey, targets: &mut [Shard]) -> Driver {
        from.run(&ShardCommand::Configure(ConfigChange::Note(RESHARD))).reply.expect("notes");
        let ranges = targets.iter().map(|target| target.state().hash_range).collect();
        let copy = Copy::new(source, from.state(), key.clone(), ranges);
        let driver = Driver { source, copy, reached: Reached::default(), numbers: vec![0; targets.len()] };
        for (position, target) in targets.iter_mut().enumerate() {
            let origins = driver.copy.origins(from.state(), position);
            let reached = driver.reached.clone();
            let begin = Batch { source, driver: FIRST, number: 0, pairs: Vec::new(), reached, origins };
            target.run(&ShardCommand::Receive(begin)).reply.expect("begun");
        }
        driver
    }

    fn send(&mut self, piece: Piece, targets: &mut [Shard]) {
        self.reached = piece.reached;
        for (position, pairs) in piece.pairs.into_iter().enumerate() {
            self.numbers[position] += 1;
            let batch = Batch {
                source: self.source,
                driver: FIRST,
                number: self.numbers[position],
                pairs,
                reached: self.reached.clone(),
                origins: Vec::new(),
            };
            let again = batch.clone();
            targets[position].run(&ShardCommand::Receive(batch)).reply.expect("taken");
            let repeat = targets[position].run(&ShardCommand::Receive(again));
            assert!(repeat.reply.is_ok() && repeat.batch.is_empty(), "what is sent twice is taken once");
        }
    }

    /// One piece of whatever is left. Says whether nothing was.
    fn step(&mut self, from: &Shard, targets: &mut [Shard]) -> bool {
        let piece = if self.reached.all_scanned {
            self.copy.follow(from.view().as_ref(), &self.reached, SMALL)
        } else {
            self.copy.scan(from.view().as_ref(), &self.reached, SMALL)
        };
        let piece = piece.expect("no arrays in the key");
        let nothing_left = self.reached.all_scanned && piece.examined == 0;
        if !nothing_left {
            self.send(piece, targets);
        }
        nothing_left
    }

    /// Seals the source and sends the rest.
    fn finish(mut self, from: &mut Shard, targets: &mut [Shard]) {
        from.run(&ShardCommand::Configure(ConfigChange::Seal(RESHARD))).reply.expect("sealed");
        while !self.step(from, targets) {}
        let mut last = self.copy.follow(from.view().as_ref(), &self.reached, SMALL).expect("nothing left");
        last.reached.complete = true;
        self.send(last, targets);
    }
}

/// A shard that takes the place of `sources`.
fn target(range: HashRange, key: &ShardKey, sources: &[ShardId]) -> Shard {
    let mut state = ShardState::new(CollectionId(1), Epoch(1));
    state.hash_range = range;
    state.shard_key = key.clone();
    let source =
        |shard: &ShardId| Source { shard: *shard, driver: Run::NONE, number: 0, reached: Reached::default() };
    state.receiving = sources.iter().map(source).collect();
    Shard::with_state(state)
}

fn halves() -> [HashRange; 2] {
    let middle = u64::MAX / 2;
    [HashRange { first: 0, last: middle }, HashRange { first: middle + 1, last: u64::MAX }]
}

fn by_id(shards: &[&Shard]) -> BTreeMap<String, Document> {
    let documents = shards.iter().flat_map(|shard| shard.documents());
    documents.map(|document| (format!("{:?}", document.get("_id")), document)).collect()
}

/// A write of one statement that may be sent again.
fn identified(txn: i64, op: WriteOp) -> WriteRequest {
    WriteRequest { session: Some((SESSION, txn)), ..request(vec![op]) }
}

fn update_many(shard: &Shard) -> WriteOp {
    shard.update_op(&doc! {}, &doc! { "$inc": { "n": 1 } }, true, None, ReturnDocument::None).expect("valid")
}

fn only(mut results: Vec<StatementResult>) -> StatementResult {
    assert_eq!(results.len(), 1);
    results.remove(0)
}

#[derive(Clone, Debug)]
enum Step {
    Insert(i32, i32),
    Change(i32, i32),
    Delete(i32),
    Copy,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..40, 0..9).prop_map(|(id, group)| Step::Insert(id, group)),
        (0..40, 0..9).prop_map(|(id, group)| Step::Change(id, group)),
        (0..40).prop_map(Step::Delete),
        Just(Step::Copy),
    ]
}

fn op(shard: &Shard, step: &Step) -> Option<WriteOp> {
    match step {
        Step::Insert(id, group) => {
            Some(insert_op(&doc! { "_id": id, "group": group, "tags": [*group, *id] }))
        }
        Step::Change(id, group) => {
            let (filter, update) =
                (doc! { "_id": id }, doc! { "$set": { "group": group }, "$inc": { "n": 1 } });
            shard.update_op(&filter, &update, false, None, ReturnDocument::None).ok()
        }
        Step::Delete(id) => shard.delete_op(&doc! { "_id": id }, false, ReturnDocument::None).ok(),
        Step::Copy => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is written while a shard is copied, by its own key or by another one: in the end its targets have together
    /// what it has, each what it owns, with the entries of every index.
    #[test]
    fn targets_have_together_what_their_source_has(
        before in prop::collection::vec(step(), 0..30), during in prop::collection::vec(step(), 0..60),
        new_key: bool,
    ) {
        let key = if new_key { ShardKey::new(["group"]) } else { ShardKey::on_id() };
        let mut source = Shard::new();
        let mut targets: Vec<Shard> =
            halves().into_iter().map(|range| target(range, &key, &[ShardId(100)])).collect();
        for shard in targets.iter_mut().chain([&mut source]) {
            shard.create_index(&doc! { "tags": 1 }, false).expect("empty");
            shard.create_index(&doc! { "group": 1, "_id": 1 }, true).expect("empty");
        }
        for step in &before {
            if let Some(op) = op(&source, step) {
                source.write(request(vec![op]));
            }
        }
        let mut driver = Driver::begin(ShardId(100), &mut source, &key, &mut targets);
        for step in &during {
            match op(&source, step) {
                Some(op) => drop(source.write(request(vec![op]))),
                None => drop(driver.step(&source, &mut targets)),
            }
        }
        driver.finish(&mut source, &mut targets);
        prop_assert_eq!(by_id(&[&targets[0], &targets[1]]), by_id(&[&source]));
        for target in &targets {
            prop_assert!(target.state().serves());
            for document in target.documents() {
                let hash = key.hash(DocBuf::encode(&document).expect("encodes").as_doc()).expect("no arrays");
                prop_assert!(target.state().hash_range.contains(hash));
            }
            let report = target.validate();
            prop_assert!(report.errors.is_empty(), "{:?}", report.errors);
        }
    }
}

/// Splits a shard into two halves while nothing is written.
fn split(source: &mut Shard) -> Vec<Shard> {
    let key = ShardKey::on_id();
    let mut targets: Vec<Shard> =
        halves().into_iter().map(|range| target(range, &key, &[ShardId(100)])).collect();
    let mut driver = Driver::begin(ShardId(100), source, &key, &mut targets);
    while !driver.step(source, &mut targets) {}
    driver.finish(source, &mut targets);
    targets
}

fn with_documents(count: i32) -> Shard {
    let mut shard = Shard::new();
    shard.write(request((0..count).map(|id| insert_op(&doc! { "_id": id, "n": 0 })).collect()));
    shard
}

#[test]
fn a_write_that_is_sent_again_to_a_target_is_recognised() {
    let mut source = with_documents(0);
    let insert = identified(1, insert_op(&doc! { "_id": 5 }));
    source.write(insert.clone());
    let mut targets = split(&mut source);
    let owner = targets.iter_mut().find(|target| !target.documents().is_empty()).expect("one has it");
    let again = only(owner.write(insert));
    assert_eq!((again.outcome, again.repeated), (Ok(Outcome::Inserted), true));
    owner.forget();
    let newer = identified(2, insert_op(&doc! { "_id": 5 }));
    assert_eq!(only(owner.write(newer)).outcome.expect_err("there").code, Code::DUPLICATE_KEY);
    let older = identified(0, insert_op(&doc! { "_id": 6 }));
    let refused = owner.run(&ShardCommand::Write(older)).reply.expect_err("old");
    assert_eq!(refused.code, Code::TRANSACTION_TOO_OLD);
}

/// A command of many statements may take longer than a session may be idle.
#[test]
fn a_target_forgets_nothing_before_it_has_everything() {
    let mut source = with_documents(0);
    let insert = |stmt_id: i32| {
        let mut write = identified(1, insert_op(&doc! { "_id": stmt_id }));
        write.statements = [Statement { stmt_id, op: insert_op(&doc! { "_id": stmt_id }) }].into();
        write
    };
    source.write(insert(0));
    source.write(insert(2_000));
    let whole = HashRange { first: 0, last: u64::MAX };
    let mut targets = [target(whole, &ShardKey::on_id(), &[ShardId(100)])];
    let mut driver = Driver::begin(ShardId(100), &mut source, &ShardKey::on_id(), &mut targets);
    while !driver.step(&source, &mut targets) {}
    source.write(insert(4_000));
    let expire = ShardCommand::ExpireSessions { before_wall_ms: i64::MAX };
    let nothing = ShardReply::Expired { sessions: 0, done: true };
    assert_eq!(targets[0].run(&expire).reply, Ok(nothing));
    driver.finish(&mut source, &mut targets);
    for stmt_id in [0, 2_000, 4_000] {
        let again = only(targets[0].write(insert(stmt_id)));
        assert!(again.repeated, "statement {stmt_id}: {again:?}");
    }
}

#[test]
fn a_statement_of_many_documents_is_applied_once_and_counted_once_across_a_split() {
    let mut source = with_documents(20);
    source.write(identified(1, update_many(&source)));
    let mut targets = split(&mut source);
    let mut total = 0;
    for target in &mut targets {
        let op = update_many(target);
        let again = only(target.write(identified(1, op)));
        assert!(again.repeated);
        let Ok(Outcome::Updated { matched, .. }) = again.outcome else { panic!("updated") };
        total += matched;
        assert!(target.documents().iter().all(|document| document.get_i32("n").ok() == Some(1)));
    }
    assert_eq!(total, 20);
}

/// Statement 0 of transaction 1 has changed ten of twenty documents.
fn half_done() -> Shard {
    let mut shard = with_documents(20);
    let mut first_half = update_many(&shard);
    if let WriteOp::Update { candidates, .. } = &mut first_half {
        candidates.keys.truncate(10);
        candidates.more = true;
    }
    shard.write(identified(1, first_half));
    shard
}

#[test]
fn a_statement_of_many_documents_goes_on_in_the_targets_where_its_shard_left_it() {
    let mut source = half_done();
    let mut targets = split(&mut source);
    let mut total = 0;
    for target in &mut targets {
        let op = update_many(target);
        total += matched(target, identified(1, op));
    }
    assert_eq!(total, 20);
    assert!(
        by_id(&[&targets[0], &targets[1]]).values().all(|document| document.get_i32("n").ok() == Some(1))
    );
}

#[test]
fn shards_that_merge_bring_their_parts_of_a_statement_along() {
    let mut source = with_documents(20);
    let mut parts = split(&mut source);
    // One of the two shards was done with its part, the other was not reached.
    let op = update_many(&parts[0]);
    parts[0].write(identified(3, op));
    let mut whole = merge(&mut parts);
    assert!(whole.state().serves());
    let op = update_many(&whole);
    assert_eq!(matched(&mut whole, identified(3, op)), 20);
    assert!(whole.documents().iter().all(|document| document.get_i32("n").ok() == Some(1)));
}

/// What a part says of a statement may contain what the shard before it said.
#[test]
fn a_statement_that_goes_on_in_the_parts_of_a_shard_is_counted_once_when_they_merge() {
    for gone_on in [&[0_usize, 1][..], &[0], &[1], &[]] {
        let mut source = half_done();
        let mut parts = split(&mut source);
        for part in gone_on {
            let op = update_many(&parts[*part]);
            parts[*part].write(identified(1, op));
        }
        let mut whole = merge(&mut parts);
        for _ in 0..2 {
            let op = update_many(&whole);
            assert_eq!(matched(&mut whole, identified(1, op)), 20, "it went on in {gone_on:?}");
        }
        assert!(whole.documents().iter().all(|document| document.get_i32("n").ok() == Some(1)));
    }
}

/// Makes one shard of the two halves of one, 101 and 102.
fn merge(parts: &mut [Shard]) -> Shard {
    let (key, numbers) = (ShardKey::on_id(), [ShardId(101), ShardId(102)]);
    let mut whole = [target(HashRange::WHOLE, &key, &numbers)];
    for (part, shard) in parts.iter_mut().zip(numbers) {
        let mut driver = Driver::begin(shard, part, &key, &mut whole);
        while !driver.step(part, &mut whole) {}
        driver.finish(part, &mut whole);
    }
    let [whole] = whole;
    whole
}

fn matched(shard: &mut Shard, write: WriteRequest) -> u64 {
    let Ok(Outcome::Updated { matched, .. }) = only(shard.write(write)).outcome else { panic!("updated") };
    matched
}

#[test]
fn a_target_serves_nobody_before_it_has_everything() {
    let key = ShardKey::on_id();
    let mut waiting = target(HashRange::WHOLE, &key, &[ShardId(100)]);
    let write = ShardCommand::Write(request(vec![insert_op(&doc! { "_id": 1 })]));
    assert_eq!(waiting.run(&write).reply.expect_err("refused").code, Code::STALE_CONFIG);
}

#[test]
fn whoever_copied_before_copies_nothing_more_once_another_has_begun() {
    let key = ShardKey::on_id();
    let mut waiting = target(HashRange::WHOLE, &key, &[ShardId(100)]);
    let batch = |(term, run), number| {
        let (pairs, reached, origins) = (Vec::new(), Reached::default(), Vec::new());
        ShardCommand::Receive(Batch {
            source: ShardId(100),
            driver: Run { term: Term(term), run },
            number,
            pairs,
            reached,
            origins,
        })
    };
    waiting.run(&batch((3, 9), 0)).reply.expect("begun");
    waiting.run(&batch((3, 9), 1)).reply.expect("in turn");
    waiting.run(&batch((4, 1), 0)).reply.expect("the next leader begins");
    waiting.run(&batch((4, 1), 1)).reply.expect("in turn");
    waiting.run(&batch((4, 2), 0)).reply.expect("and begins again");
    // The one after the next of its own run, and whatever is late.
    for late in [batch((4, 2), 2), batch((4, 1), 2), batch((4, 1), 0), batch((3, 9), 2), batch((5, 1), 1)] {
        assert_eq!(waiting.run(&late).reply.expect_err("refused").code, Code::ILLEGAL_OPERATION);
    }
    waiting.run(&batch((4, 2), 1)).reply.expect("in turn");
    waiting.run(&batch((4, 2), 0)).reply.expect("a beginning that comes late begins nothing");
    waiting.run(&batch((4, 2), 2)).reply.expect("in turn");
}

#[test]
fn a_document_with_an_array_in_the_new_key_ends_the_copying() {
    let source = with_documents(0);
    let mut source = source;
    source.write(request(vec![insert_op(&doc! { "_id": 1, "group": [1] })]));
    let copy = Copy::new(ShardId(100), source.state(), ShardKey::new(["group"]), vec![HashRange::WHOLE]);
    match copy.scan(source.view().as_ref(), &Reached::default(), SMALL) {
        Err(query::Failure::Error(error)) => assert_eq!(error.code, Code::SHARD_KEY_NOT_FOUND),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_update_may_not_move_a_document_to_another_shard() {
    let mut state = ShardState::new(CollectionId(1), Epoch(1));
    state.shard_key = ShardKey::new(["group"]);
    let hash = |group: i32| {
        let document = DocBuf::encode(&doc! { "group": group }).expect("encodes");
        ShardKey::new(["group"]).hash(document.as_doc()).expect("no arrays")
    };
    state.hash_range = HashRange { first: hash(1), last: hash(1) };
    let mut shard = Shard::with_state(state);
    shard.write(request(vec![insert_op(&doc! { "_id": 1, "group": 1 })]));
    let change = |shard: &Shard, update| {
        let op = shard.update_op(&doc! { "_id": 1 }, &update, false, None, ReturnDocument::None);
        request(vec![op.expect("valid")])
    };
    let other_key = change(&shard, doc! { "$set": { "group": 2 } });
    assert_eq!(only(shard.write(other_key)).outcome.expect_err("refused").code, Code::ILLEGAL_OPERATION);
    let equal_key = change(&shard, doc! { "$set": { "group": 1.0, "n": 5 } });
    assert!(only(shard.write(equal_key)).outcome.is_ok());
    let elsewhere = request(vec![insert_op(&doc! { "_id": 2, "group": 2 })]);
    assert_eq!(only(shard.write(elsewhere)).outcome.expect_err("refused").code, Code::ILLEGAL_OPERATION);
}

fn probe(shard: &mut Shard, round: u64) -> ProbeReply {
    let ballot = Ballot { round, boot: BootId(1) };
    let probe = Probe { session: SESSION, txn: 1, stmt_id: 0, ballot };
    match shard.run(&ShardCommand::Probe(probe)).reply.expect("served") {
        ShardReply::Probed(reply) => reply,
        other => panic!("not an answer to a probe: {other:?}"),
    }
}

fn fence(shard: &mut Shard, round: u64) -> Fence {
    match probe(shard, round) {
        ProbeReply::Fenced(fence) => fence,
        other => panic!("no fence: {other:?}"),
    }
}

#[test]
fn of_two_attempts_at_a_statement_only_the_one_that_asked_last_is_executed() {
    let mut shard = with_documents(1);
    let attempt = |shard: &mut Shard, fence| {
        let op = shard.update_op(&doc! {}, &doc! { "$inc": { "n": 1 } }, false, None, ReturnDocument::None);
        let write = WriteRequest { fence: Some(fence), ..identified(1, op.expect("valid")) };
        only(shard.write(write)).outcome
    };
    let first = fence(&mut shard, 5);
    let second = fence(&mut shard, 6);
    assert_eq!(probe(&mut shard, 5), ProbeReply::Outranked(Ballot { round: 6, boot: BootId(1) }));
    assert_eq!(attempt(&mut shard, first), Ok(Outcome::LostCandidate));
    // A leader that comes after has forgotten who asked.
    shard.forget();
    assert_eq!(attempt(&mut shard, second), Ok(Outcome::LostCandidate));
    let third = fence(&mut shard, 6);
    assert!(matches!(attempt(&mut shard, third), Ok(Outcome::Updated { matched: 1, .. })));
    assert!(matches!(probe(&mut shard, 7), ProbeReply::Executed(Outcome::Updated { matched: 1, .. })));
    assert_eq!(shard.documents(), [doc! { "_id": 0, "n": Bson::Int32(1) }]);
}
