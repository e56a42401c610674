//! What a request's evaluation depends on beside its documents: the shard's state, candidates that went stale, and the
//! statements before.

use base::{Code, CollectionId, Epoch, ReshardId, SessionId};
use bson::{Bson, doc};
use document::filter::Filter;
use document::{DocRef, Variables};
use query::evaluate::{
    Candidates, ConfigChange, Outcome, ReturnDocument, ShardCommand, ShardReply, Statement, WriteOp,
};
use query::state::ShardState;

use crate::shard::{Options, Shard, insert_op, request};

fn shard_with(documents: &[bson::Document]) -> Shard {
    let mut shard = Shard::new();
    shard.create_index(&doc! { "a": 1 }, true).expect("an empty shard takes any index");
    let results = shard.write(request(documents.iter().map(insert_op).collect()));
    assert!(results.iter().all(|result| result.outcome == Ok(Outcome::Inserted)));
    shard
}

fn refusal(shard: &mut Shard, command: &ShardCommand) -> Code {
    let evaluation = shard.run(command);
    assert!(evaluation.batch.is_empty());
    evaluation.reply.expect_err("refused").code
}

/// The upsert of `{a: 1}` as its candidates stand now.
fn upsert(shard: &Shard) -> WriteOp {
    let (filter, update) = (doc! { "a": 1 }, doc! { "$inc": { "n": 1 } });
    shard.update_op(&filter, &update, false, Some(Bson::Int32(9)), ReturnDocument::None).expect("valid")
}

#[test]
fn a_request_of_another_epoch_or_for_a_sealed_shard_is_refused() {
    let mut shard = Shard::with_state(ShardState::new(CollectionId(1), Epoch(2)));
    let mut write = request(vec![insert_op(&doc! { "_id": 1 })]);
    assert_eq!(refusal(&mut shard, &ShardCommand::Write(write.clone())), Code::STALE_CONFIG);
    write.epoch = Epoch(2);
    shard.write(write.clone());
    let seal = ShardCommand::Configure(ConfigChange::Seal(ReshardId(1)));
    assert_eq!(refusal(&mut shard, &seal), Code::ILLEGAL_OPERATION, "its changes are not noted");
    shard.run(&ShardCommand::Configure(ConfigChange::Note(ReshardId(1))));
    shard.run(&seal);
    assert_eq!(refusal(&mut shard, &ShardCommand::Write(write)), Code::STALE_CONFIG);
}

#[test]
fn a_change_of_state_that_was_made_already_writes_nothing() {
    let mut shard = Shard::new();
    shard.create_index(&doc! { "a": 1 }, false).expect("an empty shard takes any index");
    let index = shard.state().indexes[0].spec.clone();
    for change in [ConfigChange::AddIndex(index.clone()), ConfigChange::MarkReady(index.id)] {
        let evaluation = shard.run(&ShardCommand::Configure(change));
        assert_eq!(evaluation.reply, Ok(ShardReply::Configured));
        assert!(evaluation.batch.is_empty());
    }
    let purge = ShardCommand::PurgeIndex { index: index.id, limit: 10 };
    assert_eq!(refusal(&mut shard, &purge), Code::ILLEGAL_OPERATION);
}

#[test]
fn a_statement_whose_candidate_stopped_matching_asks_for_others() {
    let mut shard = shard_with(&[doc! { "_id": 1, "a": 1 }]);
    let stale = upsert(&shard);
    let delete = shard.delete_op(&doc! { "a": 1 }, false, ReturnDocument::None).expect("valid");
    let change =
        shard.update_op(&doc! { "_id": 1 }, &doc! { "$set": { "a": 2 } }, false, None, ReturnDocument::None);
    shard.write(request(vec![change.expect("valid")]));
    for op in [stale, delete] {
        let results = shard.write(request(vec![op, insert_op(&doc! { "_id": 5 })]));
        assert_eq!(results.len(), 1, "an ordered request ends there");
        assert_eq!(results[0].outcome, Ok(Outcome::LostCandidate));
    }
}

#[test]
fn candidates_that_are_all_there_can_be_are_not_sought_again() {
    let mut shard = shard_with(&[]);
    let filter = Filter::parse(DocRef::Tree(&doc! { "_id": 7 }), &Variables::default()).expect("valid");
    let key = query::encoding::document_key(&document::Value::Int32(7)).into();
    let delete = WriteOp::Delete {
        candidates: Candidates { keys: vec![key], exact: true, more: false },
        filter: std::sync::Arc::new(filter),
        multi: false,
        return_document: ReturnDocument::None,
    };
    let results = shard.write(request(vec![delete]));
    assert_eq!(results[0].outcome, Ok(Outcome::Deleted { deleted: 0, document: None }));
}

#[test]
fn an_upsert_that_meets_a_match_inserted_since_asks_for_candidates_again() {
    let mut shard = shard_with(&[]);
    let op = upsert(&shard);
    shard.write(request(vec![insert_op(&doc! { "_id": 1, "a": 1 })]));
    assert_eq!(shard.write(request(vec![op]))[0].outcome, Ok(Outcome::LostCandidate));
    let op = upsert(&shard);
    let updated = Outcome::Updated { matched: 1, modified: 1, upserted: None, document: None };
    assert_eq!(shard.write(request(vec![op]))[0].outcome, Ok(updated));
}

#[test]
fn statements_see_what_earlier_ones_of_their_request_did() {
    let mut shard = shard_with(&[doc! { "_id": 1, "a": 1 }]);
    let free = shard.delete_op(&doc! { "_id": 1 }, false, ReturnDocument::None).expect("valid");
    let take = insert_op(&doc! { "_id": 2, "a": 1 });
    let again = insert_op(&doc! { "_id": 3, "a": 1 });
    let results = shard.write(request(vec![free, take, again]));
    assert_eq!(results[1].outcome, Ok(Outcome::Inserted));
    assert_eq!(results[2].outcome.as_ref().map_err(|error| error.code), Err(Code::DUPLICATE_KEY));
    assert_eq!(shard.documents(), [doc! { "_id": 2, "a": 1 }]);
    assert!(shard.validate().is_valid());
}

#[test]
fn an_unordered_request_goes_on_after_a_failure() {
    let mut shard = shard_with(&[]);
    let ops = [1, 1, 2].map(|id| insert_op(&doc! { "_id": id, "a": id }));
    let mut unordered = request(ops.into());
    unordered.ordered = false;
    let failed: Vec<bool> = shard.write(unordered).iter().map(|result| result.outcome.is_err()).collect();
    assert_eq!(failed, [false, true, false]);
}

#[test]
fn records_of_idle_sessions_are_removed() {
    let mut shard = Shard::new();
    for session in 0..3 {
        let mut write = request(vec![insert_op(&doc! { "_id": i32::from(session) })]);
        write.session = Some((SessionId([session; 16]), 1));
        shard.write(write);
    }
    // The clock of the tests counts milliseconds: the third write is the newest.
    let expire = ShardCommand::ExpireSessions { before_wall_ms: 1_700_000_000_003 };
    assert_eq!(shard.run(&expire).reply, Ok(ShardReply::Expired { sessions: 2, done: true }));
    assert_eq!(shard.run(&expire).reply, Ok(ShardReply::Expired { sessions: 0, done: true }));
}

/// A command of many statements may take longer than a session may be idle, and is sent again whole.
#[test]
fn what_is_known_of_a_transaction_expires_together() {
    let mut shard = Shard::new();
    let insert = |stmt_id| {
        let mut write = request(Vec::new());
        write.session = Some((SessionId([1; 16]), 1));
        write.statements = [Statement { stmt_id, op: insert_op(&doc! { "_id": stmt_id }) }].into();
        write
    };
    for stmt_id in [0, 2_000, 4_000] {
        shard.write(insert(stmt_id));
    }
    let expire = |before_wall_ms| ShardCommand::ExpireSessions { before_wall_ms };
    let nothing = ShardReply::Expired { sessions: 0, done: true };
    assert_eq!(shard.run(&expire(1_700_000_000_003)).reply, Ok(nothing));
    for stmt_id in [0, 2_000, 4_000] {
        let again = shard.write(insert(stmt_id));
        assert!(again[0].repeated, "statement {stmt_id}: {again:?}");
    }
    // Pages of an older transaction go by themselves.
    let mut newer = insert(1);
    newer.session = Some((SessionId([1; 16]), 2));
    shard.write(newer);
    let two = ShardReply::Expired { sessions: 2, done: true };
    assert_eq!(shard.run(&expire(1_700_000_000_004)).reply, Ok(two));
}

#[test]
fn a_blocking_sort_keeps_only_what_its_limit_needs() {
    let mut shard = Shard::new();
    let documents = (0..40).map(|id| doc! { "_id": id, "n": (id * 7) % 40 }).collect::<Vec<_>>();
    shard.write(request(documents.iter().map(insert_op).collect()));
    let options = Options { sort: Some(doc! { "n": -1 }), skip: 2, limit: Some(3), ..Options::default() };
    let found = shard.find(&doc! {}, &options).expect("runs");
    let numbers: Vec<i32> = found.iter().map(|document| document.get_i32("n").expect("an int")).collect();
    assert_eq!(numbers, [37, 36, 35]);
}

#[test]
fn validation_finds_missing_and_stray_entries_and_damaged_documents() {
    let mut shard = shard_with(&[doc! { "_id": 1, "a": 1 }, doc! { "_id": 2, "a": 2 }]);
    let index = shard.state().indexes[0].spec.id;
    let keys: Vec<_> = shard.keys(query::encoding::index_range(index));
    let mut batch = storage::KvBatch::default();
    batch.delete(keys[0].clone());
    let stray = query::encoding::index_entry_key(index, b"\x18", b"d\x18");
    batch.put(stray.clone(), query::encoding::index_entry_value(&stray, 1));
    let documents = shard.keys(query::encoding::document_range());
    batch.put(documents[1].clone(), &b"\x01not a document"[..]);
    shard.apply(&batch);
    let report = shard.validate();
    assert_eq!((report.documents, report.invalid_documents), (1, 1));
    let all = report.errors.join("\n");
    for expected in ["lacks an entry", "no document needs", "wrong checksum", "the counters say 2"] {
        assert!(all.contains(expected), "{expected}: {all}");
    }
}

#[test]
fn evaluations_count_once_for_a_whole_entry_and_a_fresh_evaluator_goes_on_from_there() {
    let mut shard = Shard::new();
    let (batch, _) = shard.run_together(&[
        ShardCommand::Write(request(vec![insert_op(&doc! { "_id": 1 })])),
        ShardCommand::Write(request(vec![insert_op(&doc! { "_id": 2 })])),
    ]);
    let counts = batch.ops.iter().filter(|op| op.key() == query::encoding::COUNT_KEY).count();
    assert_eq!(counts, 1);
    shard.forget();
    shard.write(request(vec![insert_op(&doc! { "_id": 3 })]));
    assert_eq!(query::execute::collection_count(shard.view().as_ref()).expect("readable").documents, 3);
    assert!(shard.validate().is_valid());
}
