//! Everything that nodes ask and answer arrives as it was; what is damaged is refused and never panics.

use base::{BootId, Code, Error, LogIndex, Namespace, NodeId, RequestId, Result, SessionId, ShardId};
use bson::{Bson, Document, doc};
use bytes::Bytes;
use document::DocBuf;
use proptest::prelude::*;
use prost::Message as _;
use router::command::{
    AggregateCommand, CollectionStats, CountCommand, CursorId, CursorReply, DeleteCommand, DeleteStatement,
    DistinctCommand, ExplainCommand, FindAndModifyAction, FindAndModifyCommand, FindAndModifyReply,
    FindCommand, GetMoreCommand, Hint, InsertCommand, UpdateCommand, UpdateSpec, UpdateStatement, Verbosity,
    WriteReply,
};
use router::peer::{Behind, Operation, OperationReply, PeerFailure, PeerReply, PeerRequest, RemoteOperation};

use super::{Wire, answer_to_wire, request_from_wire};
use crate::member::{Greeting, JoinReply, JoinRequest};
use crate::v1;

/// A document with every type that BSON has.
fn everything() -> Document {
    let cstr = |text: &str| bson::raw::CString::try_from(text).expect("no NUL");
    doc! {
        "double": f64::MIN_POSITIVE,
        "string": "naïve\0text",
        "document": { "deep": { "er": [1, { "est": Bson::Null }] } },
        "binary": Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] }),
        "old binary": Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::BinaryOld, bytes: vec![1, 2] }),
        "undefined": Bson::Undefined,
        "id": bson::oid::ObjectId::from_bytes([9; 12]),
        "flag": true,
        "date": bson::DateTime::from_millis(-1),
        "regex": Bson::RegularExpression(bson::Regex { pattern: cstr("^a"), options: cstr("i") }),
        "code": Bson::JavaScriptCode("f()".to_owned()),
        "symbol": Bson::Symbol("s".to_owned()),
        "scope": Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope { code: "g()".to_owned(), scope: doc! { "x": 1 } }),
        "int": i32::MIN,
        "timestamp": Bson::Timestamp(bson::Timestamp { time: u32::MAX, increment: 2 }),
        "long": i64::MIN,
        "decimal": Bson::Decimal128("1.50".parse().expect("a number")),
        "min": Bson::MinKey,
        "max": Bson::MaxKey,
        "$numberLong": "not a number",
    }
}

fn document() -> DocBuf {
    DocBuf::encode(&everything()).expect("encodes")
}

fn namespace() -> Namespace {
    Namespace::new("shop", "orders.2026").expect("valid")
}

fn hints() -> [Option<Hint>; 3] {
    [None, Some(Hint::Name("a_1".to_owned())), Some(Hint::Key(document()))]
}

fn updates() -> [UpdateSpec; 3] {
    [
        UpdateSpec::Document(document()),
        UpdateSpec::Operators(document()),
        UpdateSpec::Pipeline(vec![document(), document()]),
    ]
}

fn update() -> UpdateCommand {
    let statement = |(update, hint): (UpdateSpec, Option<Hint>)| UpdateStatement {
        filter: document(),
        update,
        multi: hint.is_some(),
        upsert: hint.is_none(),
        array_filters: vec![document()],
        constants: hint.is_some().then(document),
        sort: hint.is_none().then(document),
        hint,
    };
    UpdateCommand {
        namespace: namespace(),
        statements: updates().into_iter().zip(hints()).map(statement).collect(),
        ordered: true,
        variables: Some(document()),
        statement_ids: vec![i32::MIN, 0, 7],
    }
}

fn delete() -> DeleteCommand {
    let statement = |hint: Option<Hint>| DeleteStatement { filter: document(), multi: hint.is_some(), hint };
    DeleteCommand {
        namespace: namespace(),
        statements: hints().map(statement).into(),
        ordered: false,
        variables: None,
        statement_ids: vec![],
    }
}

fn find_and_modify(action: FindAndModifyAction) -> FindAndModifyCommand {
    FindAndModifyCommand {
        namespace: namespace(),
        filter: document(),
        sort: Some(document()),
        action,
        projection: None,
        array_filters: vec![document()],
        hint: None,
        variables: Some(document()),
    }
}

fn find() -> FindCommand {
    FindCommand {
        filter: Some(document()),
        sort: Some(document()),
        skip: u64::MAX,
        limit: Some(0),
        batch_size: Some(1),
        single_batch: true,
        hint: Some(Hint::Name(String::new())),
        ..FindCommand::all(namespace())
    }
}

fn count() -> CountCommand {
    CountCommand { namespace: namespace(), filter: Some(document()), skip: 1, limit: Some(2), hint: None }
}

fn distinct() -> DistinctCommand {
    DistinctCommand { namespace: namespace(), key: "a.b".to_owned(), filter: None, hint: None }
}

fn aggregate() -> AggregateCommand {
    AggregateCommand {
        namespace: namespace(),
        pipeline: vec![Bson::Document(everything()), Bson::Int32(1)],
        batch_size: Some(0),
        hint: None,
        variables: None,
    }
}

fn explained() -> Vec<Operation> {
    let commands = [
        ExplainCommand::Find(find()),
        ExplainCommand::Aggregate(aggregate()),
        ExplainCommand::Count(count()),
        ExplainCommand::Distinct(distinct()),
        ExplainCommand::Update(update()),
        ExplainCommand::Delete(delete()),
        ExplainCommand::FindAndModify(find_and_modify(FindAndModifyAction::Remove)),
    ];
    let verbosities = [Verbosity::QueryPlanner, Verbosity::ExecutionStats, Verbosity::AllPlansExecution];
    let explain = |(command, verbosity)| Operation::Explain(command, verbosity);
    commands.into_iter().zip(verbosities.into_iter().cycle()).map(explain).collect()
}

fn operations() -> Vec<Operation> {
    let insert = InsertCommand {
        namespace: namespace(),
        documents: vec![document(), document()],
        ordered: true,
        statement_ids: vec![3],
    };
    let mut operations = vec![
        Operation::Insert(insert),
        Operation::Update(update()),
        Operation::Delete(delete()),
        Operation::FindAndModify(find_and_modify(FindAndModifyAction::Remove)),
        Operation::Find(find()),
        Operation::Find(FindCommand::all(namespace())),
        Operation::GetMore(GetMoreCommand {
            cursor: CursorId(i64::MIN),
            namespace: "shop.$cmd.aggregate".to_owned(),
            batch_size: None,
        }),
        Operation::KillCursors { namespace: "a.b".to_owned(), cursors: vec![CursorId(1), CursorId(-1)] },
        Operation::Count(count()),
        Operation::Distinct(distinct()),
        Operation::Aggregate(aggregate()),
        Operation::CollectionStats(namespace()),
        Operation::Validate(namespace()),
        Operation::Reconcile,
    ];
    operations.extend(updates().map(|update| {
        let action = FindAndModifyAction::Update { update, upsert: true, return_new: false };
        Operation::FindAndModify(find_and_modify(action))
    }));
    operations.extend(explained());
    operations
}

fn requests() -> Vec<PeerRequest> {
    let remote = |(number, operation): (u64, Operation)| {
        let session = (number % 2 == 0).then_some(SessionId([5; 16]));
        PeerRequest::Operation(Box::new(RemoteOperation {
            shard: ShardId(number),
            timeout_ms: u64::MAX,
            session,
            txn_number: session.map(|_| -1),
            identity: RequestId { boot: BootId(u64::MAX), sequence: number },
            connection: 8,
            behind: session.map(|_| Behind { at_least: LogIndex(9), staleness_ms_max: Some(u64::MAX) }),
            operation,
        }))
    };
    let mut requests: Vec<_> = (0..).zip(operations()).map(remote).collect();
    let create = catalog::Command::CreateCollection {
        namespace: namespace(),
        uuid: [200; 16],
        options: everything(),
        drops_seen: 7,
    };
    requests.push(PeerRequest::CatalogWrite(Box::new(create)));
    requests.push(PeerRequest::CatalogWrite(Box::new(catalog::Command::JoinNode {
        token: "t".to_owned(),
        facts: facts(),
    })));
    requests.push(PeerRequest::CatalogIndex);
    requests.push(PeerRequest::ShardIndex(ShardId(u64::MAX)));
    requests.push(PeerRequest::Status);
    requests
}

fn facts() -> catalog::NodeFacts {
    catalog::NodeFacts {
        name: "one".to_owned(),
        listen: "a:1".to_owned(),
        peer: "a:2".to_owned(),
        storage: true,
        labels: [("zone".to_owned(), "a".to_owned())].into(),
    }
}

/// What the catalog answers to a new collection with such options.
fn created() -> catalog::Reply {
    let create = catalog::Command::CreateCollection {
        namespace: namespace(),
        uuid: [200; 16],
        options: everything(),
        drops_seen: 0,
    };
    let found = catalog::Command::Found { name: "shop".to_owned(), replication_factor: 3, node: facts() };
    let mut catalog = catalog::Catalog::default();
    let (changes, _) = catalog.evaluate(&found).expect("a new cluster");
    catalog.apply(&changes).expect("its own changes");
    catalog.evaluate(&create).expect("a new collection").1
}

fn error() -> Error {
    let details = DocBuf::encode(&doc! { "keyValue": everything() }).expect("encodes").into_bytes();
    Error::new(Code(i32::MIN), "no").with_details(details.to_vec())
}

fn operation_replies() -> Vec<OperationReply> {
    let write = WriteReply {
        n: u64::MAX,
        n_modified: 2,
        upserted: vec![(usize::MAX, Bson::Document(everything())), (0, Bson::Null)],
        write_errors: vec![(1, error()), (2, Error::bad_value("other"))],
        retried_statement_ids: vec![-4],
    };
    let changed = FindAndModifyReply {
        value: Some(document()),
        n: 1,
        updated_existing: Some(false),
        upserted: Some(Bson::Int64(3)),
        retried: true,
    };
    let stats = CollectionStats {
        documents: 1,
        data_bytes: 2,
        storage_bytes: 3,
        indexes: vec![("_id_".to_owned(), 4)],
        shards: 5,
    };
    let batch = |cursor| CursorReply { cursor, namespace: "a.b".to_owned(), batch: vec![document()] };
    vec![
        OperationReply::Write(write),
        OperationReply::Write(WriteReply::default()),
        OperationReply::FindAndModify(changed),
        OperationReply::FindAndModify(FindAndModifyReply::default()),
        OperationReply::Cursor(batch(Some(CursorId(0)))),
        OperationReply::Cursor(batch(None)),
        OperationReply::Killed(vec![CursorId(i64::MAX)]),
        OperationReply::Count(9),
        OperationReply::Values(everything().into_iter().map(|(_, value)| value).collect()),
        OperationReply::Document(everything()),
        OperationReply::CollectionStats(stats),
        OperationReply::Reconciled,
    ]
}

fn answers() -> Vec<Result<PeerReply, PeerFailure>> {
    let replies = operation_replies()
        .into_iter()
        .map(|reply| PeerReply::Operation { reply: Box::new(reply), applied: LogIndex(u64::MAX) });
    let mut answers: Vec<_> = replies.map(Ok).collect();
    answers.extend([
        Ok(PeerReply::CatalogWrite(Box::new(catalog::Reply::Done))),
        Ok(PeerReply::CatalogWrite(Box::new(created()))),
        Ok(PeerReply::CatalogWrite(Box::new(catalog::Reply::Indexes(vec![base::IndexId(3)])))),
        Ok(PeerReply::Index(LogIndex(u64::MAX))),
        Ok(PeerReply::Status(everything())),
        Err(PeerFailure::Unreachable("gone".to_owned())),
        Err(PeerFailure::Refused { error: error(), primary: None }),
        Err(PeerFailure::Refused { error: error(), primary: Some(NodeId(0)) }),
    ]);
    answers
}

/// As a message is after its way through the network.
fn sent<M: prost::Message + Default>(message: &M) -> M {
    M::decode(Bytes::from(message.encode_to_vec())).expect("decodes")
}

fn request_message(request: PeerRequest) -> v1::Request {
    v1::Request { sequence: 1, request: Some(request.into_wire().expect("travels")) }
}

#[test]
fn every_request_arrives_as_it_was() {
    for request in requests() {
        let arrived = request_from_wire(sent(&request_message(request.clone()))).expect("reads");
        assert_eq!(format!("{arrived:?}"), format!("{request:?}"));
    }
}

#[test]
fn every_answer_arrives_as_it_was() {
    for answer in answers() {
        let message = sent(&answer_to_wire(7, answer.clone()));
        assert_eq!(message.sequence, 7);
        let arrived = <Result<PeerReply, PeerFailure>>::from_wire(message.answer.expect("an answer"));
        let arrived = arrived.expect("reads");
        assert_eq!(format!("{arrived:?}"), format!("{answer:?}"));
    }
}

#[test]
fn joining_and_greeting_arrive_as_they_were() {
    let request = JoinRequest {
        name: "one".to_owned(),
        listen: "a:1".to_owned(),
        peer: "a:2".to_owned(),
        roles: vec!["data".to_owned()],
        labels: [("zone".to_owned(), "x".to_owned())].into(),
        version: "1".to_owned(),
        cluster_name: Some(String::new()),
        token: "t".to_owned(),
    };
    let message = sent(&request.clone().into_wire().expect("travels"));
    assert_eq!(JoinRequest::from_wire(message), Ok(request));
    let reply = JoinReply {
        cluster_id: "c".to_owned(),
        node: NodeId(4),
        peers: [(NodeId(1), "a:2".to_owned())].into(),
    };
    for outcome in [Ok(reply), Err(error())] {
        let message = sent(&outcome.clone().into_wire().expect("travels"));
        assert_eq!(<Result<JoinReply>>::from_wire(message), Ok(outcome));
    }
    let greeting = Greeting {
        cluster_id: None,
        node: Some(NodeId(0)),
        name: "one".to_owned(),
        version: "1".to_owned(),
        empty: true,
    };
    let message = sent(&greeting.clone().into_wire().expect("travels"));
    assert_eq!(Greeting::from_wire(message), Ok(greeting));
}

#[test]
fn what_cannot_be_encoded_is_an_error_and_no_panic() {
    let answer = Ok(PeerReply::Status(doc! { "a\0b": 1 }));
    let message = answer_to_wire(7, answer);
    let arrived = <Result<PeerReply, PeerFailure>>::from_wire(message.answer.expect("an answer"));
    let arrived = arrived.expect("reads");
    assert!(matches!(arrived, Err(PeerFailure::Refused { .. })), "{arrived:?}");
}

#[test]
fn documents_are_checked_before_anything_reads_them() {
    let damaged = Bytes::from_static(&[12, 0, 0, 0, 2, b'a', 0, 9, 0, 0, 0, 0]);
    assert!(DocBuf::from_wire(damaged.clone()).is_err());
    assert!(Document::from_wire(damaged.clone()).is_err());
    assert!(Bson::from_wire(damaged.clone()).is_err());
    let error = v1::Error { code: 1, message: String::new(), details: Some(damaged) };
    assert!(Error::from_wire(error).is_err());
    let mut deep = doc! {};
    for _ in 0..base::limits::PEER_NESTING_MAX {
        deep = doc! { "a": deep };
    }
    let deep = DocBuf::encode(&deep).expect("encodes").into_bytes();
    assert_eq!(DocBuf::from_wire(deep).expect_err("too deep").code, Code::OVERFLOW);
}

#[test]
fn names_sessions_and_empty_messages_are_checked() {
    let namespace = v1::Namespace { database: "a$".to_owned(), collection: "b".to_owned() };
    assert!(Namespace::from_wire(namespace).is_err());
    assert!(request_from_wire(v1::Request::default()).is_err());
    let operation = v1::RemoteOperation::default();
    assert!(RemoteOperation::from_wire(operation).is_err());
    let session =
        v1::RemoteOperation { session: Some(Bytes::from_static(b"short")), ..v1::RemoteOperation::default() };
    assert!(RemoteOperation::from_wire(session).is_err());
}

proptest! {
    #[test]
    fn damaged_requests_and_answers_never_panic(
        request in 0..requests().len(),
        answer in 0..answers().len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let spoil = |mut bytes: Vec<u8>| {
            damage.iter().for_each(|(at, value)| *at.get_mut(&mut bytes) = *value);
            Bytes::from(bytes)
        };
        let request = requests().swap_remove(request);
        if let Ok(message) = v1::Request::decode(spoil(request_message(request).encode_to_vec())) {
            let _ = request_from_wire(message);
        }
        let answer = answers().swap_remove(answer);
        let decoded = v1::Answer::decode(spoil(answer_to_wire(1, answer).encode_to_vec()));
        if let Some(answer) = decoded.ok().and_then(|message| message.answer) {
            let _ = <Result<PeerReply, PeerFailure>>::from_wire(answer);
        }
    }
}
