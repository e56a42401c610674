//! Everything that nodes ask and answer arrives as it was; what is damaged is refused and never panics.

use base::{
    BootId, Code, Error, LogIndex, Namespace, NodeId, RequestId, Result, SessionId, ShardId, Term, Timestamp,
};
use bson::{Bson, Document, doc};
use bytes::Bytes;
use document::shard_key::SHARD_KEY_FIELDS_MAX;
use document::{DocBuf, ShardKey};
use proptest::prelude::*;
use prost::Message as _;
use query::encoding;
use query::evaluate::{Ballot, Batch, Fence};
use query::state::{Driver, HashRange, Origin, Reached, Source};
use router::command::{
    AggregateCommand, CollectionStats, CountCommand, CursorId, DeleteCommand, DeleteStatement,
    DistinctCommand, ExplainCommand, FindAndModifyAction, FindAndModifyCommand, FindAndModifyReply,
    FindCommand, Found, Hint, InsertCommand, ScanCommand, ScanReply, ScanScope, ScanSize, SeekCommand,
    SeekReply, UpdateCommand, UpdateSpec, UpdateStatement, Verbosity, WriteReply,
};
use router::peer::{
    Behind, Executed, Operation, OperationReply, PeerFailure, PeerReply, PeerRequest, RemoteOperation,
};

use super::peer::OPERATIONS_MAX;
use super::{NUMBER_MAX, Wire, answer_to_wire, request_from_wire};
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

fn size() -> ScanSize {
    ScanSize { documents_max: u64::MAX, bytes_max: 0 }
}

/// A find's part, whole.
fn scan() -> ScanCommand {
    ScanCommand {
        namespace: namespace(),
        filter: Some(document()),
        sort: Some(document()),
        projection: Some(document()),
        skip: u64::MAX,
        limit: Some(0),
        hint: Some(Hint::Name(String::new())),
        variables: Some(document()),
        pipeline: Vec::new(),
        ranked: true,
        after: Some(Bytes::from_static(b"\x00behind")),
        scopes: vec![
            ScanScope {
                shard_key: vec!["a.b".to_owned(), "_id".to_owned()],
                first: u64::MAX - 1,
                last: u64::MAX,
            },
            ScanScope { shard_key: vec!["_id".to_owned()], first: 0, last: 1 },
        ],
        size: size(),
        keep: true,
    }
}

/// An aggregation's part, all else absent.
fn scan_of_stages() -> ScanCommand {
    ScanCommand {
        filter: None,
        sort: None,
        projection: None,
        skip: 0,
        limit: None,
        hint: None,
        variables: None,
        pipeline: aggregate().pipeline,
        ranked: false,
        after: None,
        scopes: Vec::new(),
        keep: false,
        ..scan()
    }
}

fn ballot() -> Ballot {
    Ballot { round: NUMBER_MAX, boot: BootId(u64::MAX) }
}

fn fence() -> Fence {
    Fence { ballot: ballot(), since: Timestamp::from_u64(u64::MAX) }
}

/// A document's key.
fn key() -> Bytes {
    encoding::document_key(&document::Value::Int32(7)).into()
}

fn found() -> [Option<Found>; 3] {
    [
        None,
        Some(Found { fence: Some(fence()), key: Some(key()), upsert_id: None }),
        Some(Found { fence: None, key: None, upsert_id: Some(Bson::Document(everything())) }),
    ]
}

fn seeks() -> [SeekCommand; 2] {
    let seek = SeekCommand {
        namespace: namespace(),
        filter: document(),
        sort: Some(document()),
        hint: Some(Hint::Key(document())),
        variables: Some(document()),
        stmt_id: i32::MIN,
        ballot: ballot(),
    };
    [SeekCommand { sort: None, hint: None, variables: None, stmt_id: 0, ..seek.clone() }, seek]
}

fn reached() -> Reached {
    let followed = Timestamp { seconds: u32::MAX, counter: 1 };
    Reached { scanned: key(), all_scanned: true, followed, complete: true }
}

/// How far copying has come, and how it begins.
fn batches() -> [Batch; 2] {
    let own = encoding::retry_key(SessionId([5; 16]), 3);
    let taken = encoding::taken_retry_key(&own, ShardId(u64::MAX)).into();
    let stored = encoding::encode_document(document().bytes(), Timestamp::from_u64(9));
    let pairs = vec![(key(), Some(stored)), (key(), None), (own.into(), Some(Bytes::new())), (taken, None)];
    let origin = Origin {
        shard: ShardId(NUMBER_MAX),
        range: HashRange { first: 1, last: u64::MAX },
        shard_key: ShardKey::new(["customer", "place.zip"]),
        counts: true,
        counted: vec![ShardId(1), ShardId(NUMBER_MAX)],
    };
    let whole =
        Origin { range: HashRange::WHOLE, shard_key: ShardKey::on_id(), counts: false, ..origin.clone() };
    let batch = Batch {
        source: ShardId(NUMBER_MAX),
        driver: Driver { term: Term(NUMBER_MAX), run: NUMBER_MAX },
        number: NUMBER_MAX,
        pairs,
        reached: reached(),
        origins: Vec::new(),
    };
    let begins = Batch {
        number: 0,
        pairs: Vec::new(),
        reached: Reached::default(),
        origins: vec![origin, whole],
        ..batch.clone()
    };
    [batch, begins]
}

fn explained() -> Vec<Operation> {
    let commands = [
        ExplainCommand::Find(find()),
        ExplainCommand::Find(FindCommand::all(namespace())),
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
        Operation::Scan(scan()),
        Operation::Scan(scan_of_stages()),
        Operation::Continue {
            namespace: "shop.$cmd.aggregate".to_owned(),
            cursor: CursorId(i64::MIN),
            size: size(),
        },
        Operation::KillCursors { namespace: "a.b".to_owned(), cursors: vec![CursorId(1), CursorId(-1)] },
        Operation::Count(count()),
        Operation::Distinct(distinct()),
        Operation::CollectionStats(namespace()),
        Operation::Validate(namespace()),
        Operation::Reconcile,
    ];
    operations.extend(updates().map(|update| {
        let action = FindAndModifyAction::Update { update, upsert: true, return_new: false };
        Operation::FindAndModify(find_and_modify(action))
    }));
    operations.extend(seeks().map(Operation::Seek));
    operations.extend(batches().map(Operation::Receive));
    operations.extend(explained());
    operations
}

fn remote_operations() -> Vec<RemoteOperation> {
    let remote = |((number, operation), found): ((u64, Operation), Option<Found>)| {
        let session = (number % 2 == 0).then_some(SessionId([5; 16]));
        RemoteOperation {
            shard: ShardId(number),
            timeout_ms: u64::MAX,
            session,
            txn_number: session.map(|_| -1),
            identity: RequestId { boot: BootId(u64::MAX), sequence: number },
            connection: 8,
            found,
            behind: session.map(|_| Behind { at_least: LogIndex(9), staleness_ms_max: Some(u64::MAX) }),
            operation,
        }
    };
    (0..).zip(operations()).zip(found().into_iter().cycle()).map(remote).collect()
}

fn requests() -> Vec<PeerRequest> {
    let each = remote_operations().into_iter().map(|operation| PeerRequest::Operation(Box::new(operation)));
    let mut requests: Vec<_> = each.collect();
    requests.push(PeerRequest::Operations(remote_operations()));
    requests.push(PeerRequest::Operations(Vec::new()));
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
    requests.push(PeerRequest::Loads);
    requests.push(PeerRequest::Status);
    requests.push(PeerRequest::HandOver { shard: ShardId(u64::MAX), to: base::NodeId(u32::MAX) });
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
    let batch = ScanReply {
        documents: vec![document(), document()],
        sort_keys: vec![Bytes::from_static(b"\x01"), Bytes::new()],
        position: Bytes::from_static(b"\xff\x00"),
        cursor: Some(CursorId(0)),
        is_done: true,
    };
    let unranked = ScanReply { sort_keys: Vec::new(), ..batch.clone() };
    let best = Some((Bytes::from_static(b"\x00"), key()));
    let source = Source {
        shard: ShardId(NUMBER_MAX),
        driver: Driver { term: Term(1), run: 0 },
        number: NUMBER_MAX,
        reached: reached(),
    };
    vec![
        OperationReply::Write(write),
        OperationReply::Write(WriteReply::default()),
        OperationReply::FindAndModify(changed),
        OperationReply::FindAndModify(FindAndModifyReply::default()),
        OperationReply::Scan(batch),
        OperationReply::Scan(unranked),
        OperationReply::Scan(ScanReply::default()),
        OperationReply::Seek(SeekReply::Executed),
        OperationReply::Seek(SeekReply::Fenced { fence: fence(), found: best }),
        OperationReply::Seek(SeekReply::Fenced { fence: fence(), found: None }),
        OperationReply::Seek(SeekReply::Outranked(ballot())),
        OperationReply::Received(source.clone()),
        OperationReply::Received(Source { reached: Reached::default(), ..source }),
        OperationReply::Killed(vec![CursorId(i64::MAX)]),
        OperationReply::Count(9),
        OperationReply::Values(everything().into_iter().map(|(_, value)| value).collect()),
        OperationReply::Document(everything()),
        OperationReply::CollectionStats(stats),
        OperationReply::Reconciled,
    ]
}

fn answers() -> Vec<Result<PeerReply, PeerFailure>> {
    let executed = |reply| Executed { reply, applied: LogIndex(u64::MAX) };
    let executed: Vec<_> = operation_replies().into_iter().map(executed).collect();
    let failures = [
        PeerFailure::Unreachable("gone".to_owned()),
        PeerFailure::Refused { error: error(), primary: None },
        PeerFailure::Refused { error: error(), primary: Some(NodeId(0)) },
    ];
    let several = executed.iter().cloned().map(Ok).chain(failures.iter().cloned().map(Err)).collect();
    let each = executed.into_iter().map(|executed| Ok(PeerReply::Operation(Box::new(executed))));
    let mut answers: Vec<_> = each.chain(failures.map(Err)).collect();
    answers.extend([
        Ok(PeerReply::Operations(several)),
        Ok(PeerReply::Operations(Vec::new())),
        Ok(PeerReply::CatalogWrite(Box::new(catalog::Reply::Done))),
        Ok(PeerReply::CatalogWrite(Box::new(created()))),
        Ok(PeerReply::CatalogWrite(Box::new(catalog::Reply::Indexes(vec![base::IndexId(3)])))),
        Ok(PeerReply::CatalogWrite(Box::new(catalog::Reply::Reshard(base::ReshardId(4))))),
        Ok(PeerReply::Index(LogIndex(u64::MAX))),
        Ok(PeerReply::Status(everything())),
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
fn an_operation_whose_answer_cannot_be_encoded_leaves_the_others_theirs() {
    let executed = |reply| Ok(Executed { reply, applied: LogIndex(1) });
    let outcomes =
        [OperationReply::Count(1), OperationReply::Document(doc! { "a\0b": 1 }), OperationReply::Count(2)];
    let answer = Ok(PeerReply::Operations(outcomes.map(executed).into()));
    let message = answer_to_wire(7, answer);
    let arrived = <Result<PeerReply, PeerFailure>>::from_wire(message.answer.expect("an answer"));
    let Ok(PeerReply::Operations(arrived)) = arrived.expect("reads") else { panic!("other answers") };
    assert!(matches!(arrived.as_slice(), [Ok(_), Err(PeerFailure::Refused { .. }), Ok(_)]), "{arrived:?}");
}

#[test]
fn requests_and_answers_with_too_many_operations_are_refused() {
    let code = |error: Option<Error>| error.map(|error| error.code);
    let outcome =
        v1::OperationOutcome { outcome: Some(v1::operation_outcome::Outcome::Unreachable(String::new())) };
    let operation = remote_operations()
        .into_iter()
        .find(|remote| matches!(remote.operation, Operation::Reconcile))
        .map(|remote| remote.into_wire().expect("travels"))
        .expect("one of them reconciles");
    for (count, expected) in [(OPERATIONS_MAX, None), (OPERATIONS_MAX + 1, Some(Code::FAILED_TO_PARSE))] {
        let operations = v1::RemoteOperations { operations: vec![operation.clone(); count] };
        let request = v1::request::Request::Operations(operations);
        assert_eq!(code(PeerRequest::from_wire(request).err()), expected);
        let outcomes = v1::OperationOutcomes { outcomes: vec![outcome.clone(); count] };
        let answer = v1::answer::Answer::Operations(outcomes);
        assert_eq!(code(<Result<PeerReply, PeerFailure>>::from_wire(answer).err()), expected);
    }
    assert!(<Result<Executed, PeerFailure>>::from_wire(v1::OperationOutcome::default()).is_err());
    assert!(Executed::from_wire(v1::OperationReply::default()).is_err());
}

#[test]
fn scans_are_checked() {
    let sent = scan().into_wire().expect("travels");
    let scope = sent.scopes.first().cloned().expect("a scope");
    let scoped = |scope| v1::Scan { scopes: vec![scope], ..sent.clone() };
    let backwards = v1::HashRange { first: 2, last: 1 };
    let long = ".".repeat(1_000);
    let refused = [
        v1::Scan { size: None, ..sent.clone() },
        v1::Scan { namespace: None, ..sent.clone() },
        v1::Scan { filter: Some(Bytes::from_static(b"no document")), ..sent.clone() },
        v1::Scan { pipeline: document().into_bytes(), ..sent.clone() },
        v1::Scan { pipeline: super::wrap(1).expect("encodes"), ..sent.clone() },
        scoped(v1::ScanScope { shard_key: vec![], ..scope.clone() }),
        scoped(v1::ScanScope { shard_key: vec!["a".to_owned(); SHARD_KEY_FIELDS_MAX + 1], ..scope.clone() }),
        scoped(v1::ScanScope { shard_key: vec![long], ..scope.clone() }),
        scoped(v1::ScanScope { range: Some(backwards), ..scope.clone() }),
        scoped(v1::ScanScope { range: None, ..scope }),
    ];
    for message in refused {
        assert!(ScanCommand::from_wire(message.clone()).is_err(), "{message:?}");
    }
    let continued = v1::ContinueScan { namespace: "a.b".to_owned(), cursor: 1, size: None };
    assert!(super::scan::Continued::from_wire(continued).is_err());
    let documents = vec![document().into_bytes(); 2];
    let reply = v1::ScanReply { documents, sort_keys: vec![Bytes::new()], ..v1::ScanReply::default() };
    assert!(ScanReply::from_wire(reply).is_err());
    let documents = vec![Bytes::from_static(b"no document")];
    assert!(ScanReply::from_wire(v1::ScanReply { documents, ..v1::ScanReply::default() }).is_err());
}

#[test]
fn seeks_and_what_they_found_are_checked() {
    let [sent, _] = seeks().map(|seek| seek.into_wire().expect("travels"));
    let round = v1::Ballot { round: NUMBER_MAX + 1, boot: 1 };
    assert!(SeekCommand::from_wire(v1::Seek { ballot: Some(round), ..sent.clone() }).is_err());
    assert!(SeekCommand::from_wire(v1::Seek { ballot: None, ..sent }).is_err());
    assert!(Fence::from_wire(v1::Fence::default()).is_err());
    let long = Bytes::from(vec![encoding::TAG_DOCUMENT; base::limits::KEY_BYTES_MAX + 1]);
    for key in [Bytes::new(), Bytes::from_static(encoding::STATE_KEY), long] {
        let found = v1::Found { key: Some(key.clone()), ..v1::Found::default() };
        assert!(Found::from_wire(found).is_err());
        let found = Some(v1::SeekFound { sort_key: Bytes::new(), key });
        let fenced = v1::SeekFenced { fence: Some(fence().into_wire().expect("travels")), found };
        let reply = v1::SeekReply { reply: Some(v1::seek_reply::Reply::Fenced(fenced)) };
        assert!(SeekReply::from_wire(reply).is_err());
    }
    let upsert = v1::Found { upsert_id: Some(Bytes::new()), ..v1::Found::default() };
    assert!(Found::from_wire(upsert).is_err());
    let unfenced = v1::seek_reply::Reply::Fenced(v1::SeekFenced::default());
    assert!(SeekReply::from_wire(v1::SeekReply { reply: Some(unfenced) }).is_err());
    assert!(SeekReply::from_wire(v1::SeekReply::default()).is_err());
}

#[test]
fn pieces_of_shards_are_checked() {
    let [sent, begins] = batches().map(|batch| batch.into_wire().expect("travels"));
    let with_key =
        |key: Bytes| v1::CopyBatch { pairs: vec![v1::CopyPair { key, value: None }], ..sent.clone() };
    let scanned = |scanned: Bytes| v1::CopyBatch {
        reached: Some(v1::CopyReached { scanned, ..v1::CopyReached::default() }),
        ..sent.clone()
    };
    let origin = begins.origins.first().cloned().expect("it has some");
    let of_origin = |origin| v1::CopyBatch { origins: vec![origin], ..begins.clone() };
    let too_high = NUMBER_MAX + 1;
    let long = Bytes::from(vec![encoding::TAG_DOCUMENT; base::limits::KEY_BYTES_MAX + 1]);
    let note = encoding::note_key(Timestamp::from_u64(1)).into();
    let refused = [
        with_key(Bytes::new()),
        with_key(Bytes::from_static(encoding::STATE_KEY)),
        with_key(encoding::index_prefix(base::IndexId(1)).into()),
        with_key(note),
        with_key(long.clone()),
        with_key(Bytes::from(vec![encoding::TAG_RETRY; 18])),
        scanned(Bytes::from_static(encoding::COUNT_KEY)),
        scanned(long),
        v1::CopyBatch { reached: None, ..sent.clone() },
        v1::CopyBatch { source: too_high, ..sent.clone() },
        v1::CopyBatch { driver: Some(v1::CopyDriver { term: too_high, run: 0 }), ..sent.clone() },
        v1::CopyBatch { number: too_high, ..sent.clone() },
        of_origin(v1::CopyOrigin { shard: too_high, ..origin.clone() }),
        of_origin(v1::CopyOrigin { shard_key: vec![], ..origin.clone() }),
        of_origin(v1::CopyOrigin { counted: vec![too_high], ..origin.clone() }),
        of_origin(v1::CopyOrigin { range: None, ..origin.clone() }),
        of_origin(v1::CopyOrigin { range: Some(v1::HashRange { first: 1, last: 0 }), ..origin }),
    ];
    for message in refused {
        assert!(Batch::from_wire(message.clone()).is_err(), "{message:?}");
    }
    let driver = Some(v1::CopyDriver { term: 1, run: 1 });
    let source = v1::CopySource { driver, reached: sent.reached, ..v1::CopySource::default() };
    assert!(Source::from_wire(source.clone()).is_ok());
    assert!(Source::from_wire(v1::CopySource { reached: None, ..source.clone() }).is_err());
    assert!(
        Source::from_wire(v1::CopySource {
            driver: Some(v1::CopyDriver { term: too_high, run: 0 }),
            ..source
        })
        .is_err()
    );
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
