//! Index choice, index keys and the evaluation of writes, by scripts. See each area's first script for its commands.

use std::error::Error;
use std::sync::Arc;

use base::{IndexId, SessionId};
use bson::{Bson, Document};
use document::filter::Filter;
use document::{DocBuf, DocRef, Value, Variables};
use query::evaluate::{Outcome, ReturnDocument, ShardCommand, ShardReply, StatementResult, WriteOp};
use query::{encoding, index};
use storage::{KvOp, View};

use crate::shard::{Evaluation, Options, Shard, describe, index_spec, insert_op, request};
use crate::support::{self, show};

#[test]
fn documents_have_the_index_keys_that_their_scripts_say() {
    support::run_scripts("keys", || {
        |name: &str, arguments: &[&str]| match (name, arguments) {
            ("keys", [key, documents @ ..]) => {
                let spec = index_spec(IndexId(1), &support::tree(key), false);
                let lines = documents.iter().map(|text| {
                    let document = support::document(text);
                    match index::keys(&spec, document.as_doc()) {
                        Ok(keys) => show_keys(&spec, document.as_doc(), &keys),
                        Err(error) => error.to_string(),
                    }
                });
                Ok(lines.collect::<Vec<_>>().join("\n"))
            }
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}

#[test]
fn plans_are_chosen_as_their_scripts_say() {
    support::run_scripts("plan", || {
        let mut shard = Shard::new();
        move |name: &str, arguments: &[&str]| match (name, arguments) {
            ("index", [key, flags @ ..]) => create_index(&mut shard, key, flags),
            ("insert", texts) => insert_all(&mut shard, texts),
            ("fill", [count, template]) => {
                let count: i32 = count.parse()?;
                for number in 0..count {
                    let text = template.replace("%10", &(number % 10).to_string());
                    let text = text.replace("%100", &(number % 100).to_string());
                    insert_all(&mut shard, &[text.replace('%', &number.to_string()).as_str()])?;
                }
                Ok(String::new())
            }
            ("plan", [filter, rest @ ..]) => {
                let filter = parse_filter(filter)?;
                Ok(describe(&shard.plan(&filter, &options(rest)?)?))
            }
            ("find", [filter, rest @ ..]) => find(&shard, filter, rest),
            ("explain", [filter, rest @ ..]) => explain(&shard, filter, rest),
            _ => Err(format!("unknown command {name}").into()),
        }
    });
}

#[test]
fn writes_evaluate_as_their_scripts_say() {
    support::run_scripts("write", || {
        let mut shard = Shard::new();
        move |name: &str, arguments: &[&str]| {
            let ops = match (name, arguments) {
                ("index", [key, flags @ ..]) => return create_index(&mut shard, key, flags),
                ("drop", [name]) => {
                    shard.drop_index_by_name(name);
                    return Ok(String::new());
                }
                ("documents", []) => return Ok(lines(shard.documents().iter().map(show_document))),
                ("validate", []) => return Ok(validate(&shard)),
                ("insert", texts) => texts.iter().map(|text| insert_op(&support::tree(text))).collect(),
                ("update" | "upsert" | "modify", [filter, update, rest @ ..]) => {
                    vec![update_op(&shard, name, filter, update, rest)?]
                }
                ("delete" | "remove", [filter, rest @ ..]) => {
                    let image = if name == "remove" { ReturnDocument::Before } else { ReturnDocument::None };
                    vec![shard.delete_op(&support::tree(filter), rest.contains(&"multi"), image)?]
                }
                ("retry", [session, txn, texts @ ..]) => {
                    return retry(&mut shard, session.parse()?, txn.parse()?, texts);
                }
                _ => return Err(format!("unknown command {name}").into()),
            };
            let mut request = request(ops);
            request.ordered = !arguments.contains(&"unordered");
            run(&mut shard, request)
        }
    });
}

fn run(shard: &mut Shard, request: query::evaluate::WriteRequest) -> Result<String, Box<dyn Error>> {
    let before = shard.view();
    let evaluation = shard.run(&ShardCommand::Write(request));
    let mut output = show_batch(shard, before.as_ref(), &evaluation);
    match &evaluation.reply {
        Ok(ShardReply::Write(results)) => output.extend(results.iter().map(show_result)),
        Ok(other) => output.push(format!("{other:?}")),
        Err(error) => output.push(error.to_string()),
    }
    Ok(output.join("\n"))
}

/// Inserts under a session's transaction number.
fn retry(shard: &mut Shard, session: u8, txn: i64, texts: &[&str]) -> Result<String, Box<dyn Error>> {
    let mut request = request(texts.iter().map(|text| insert_op(&support::tree(text))).collect());
    request.session = Some((SessionId([session; 16]), txn));
    run(shard, request)
}

fn update_op(
    shard: &Shard,
    name: &str,
    filter: &str,
    update: &str,
    flags: &[&str],
) -> Result<WriteOp, Box<dyn Error>> {
    let upsert = (name == "upsert" || flags.contains(&"upsert")).then(|| Bson::String("new".to_owned()));
    let image = match name {
        "modify" if flags.contains(&"after") => ReturnDocument::After,
        "modify" => ReturnDocument::Before,
        _ => ReturnDocument::None,
    };
    let (filter, update) = (support::tree(filter), support::tree(update));
    Ok(shard.update_op(&filter, &update, flags.contains(&"multi"), upsert, image)?)
}

fn create_index(shard: &mut Shard, key: &str, flags: &[&str]) -> Result<String, Box<dyn Error>> {
    shard.create_index(&support::tree(key), flags.contains(&"unique"))?;
    Ok(String::new())
}

fn insert_all(shard: &mut Shard, texts: &[&str]) -> Result<String, Box<dyn Error>> {
    let ops = texts.iter().map(|text| insert_op(&support::tree(text))).collect();
    for result in shard.write(request(ops)) {
        result.outcome?;
    }
    Ok(String::new())
}

fn parse_filter(text: &str) -> base::Result<Filter> {
    Filter::parse(DocRef::Tree(&support::tree(text)), &Variables::default())
}

/// `{sort: {..}, skip: 1, limit: 2, hint: ..}`
fn options(arguments: &[&str]) -> Result<Options, Box<dyn Error>> {
    let mut options = Options::default();
    let Some(text) = arguments.first() else { return Ok(options) };
    for (name, value) in support::tree(text) {
        match (name.as_str(), value) {
            ("sort", Bson::Document(sort)) => options.sort = Some(sort),
            ("skip", Bson::Int32(skip)) => options.skip = u64::try_from(skip)?,
            ("limit", Bson::Int32(limit)) => options.limit = Some(u64::try_from(limit)?),
            ("hint", hint) => options.hint = Some(hint),
            (name, _) => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(options)
}

fn find(shard: &Shard, filter: &str, rest: &[&str]) -> Result<String, Box<dyn Error>> {
    let filter = Arc::new(parse_filter(filter)?);
    let options = options(rest)?;
    let plan = shard.plan(&filter, &options)?;
    let (documents, counters) = shard.execute(plan, filter, &options);
    let ids = documents
        .iter()
        .map(|document| document.as_doc().get("_id").map_or_else(String::new, |id| show(&id.to_bson())));
    let ids: Vec<String> = ids.collect();
    let (keys, docs) = (counters.keys_examined, counters.docs_examined);
    Ok(format!("{} ({keys} keys, {docs} documents)", ids.join(" ")))
}

fn explain(shard: &Shard, filter: &str, rest: &[&str]) -> Result<String, Box<dyn Error>> {
    let tree = support::tree(filter);
    let filter = Arc::new(parse_filter(filter)?);
    let options = options(rest)?;
    let plan = shard.plan(&filter, &options)?;
    let (_, counters) = shard.execute(plan.clone(), filter, &options);
    let explained = query::explain::Explained {
        namespace: &crate::shard::namespace(),
        filter: &tree,
        projection: None,
        sort: options.sort.as_ref(),
        skip: options.skip,
        limit: options.limit,
    };
    let planner = query::explain::query_planner(&plan, &explained);
    let stats = query::explain::execution_stats(&plan, &explained, &counters, 0);
    Ok(lines([planner, stats].iter().map(show_document)))
}

fn validate(shard: &Shard) -> String {
    let report = shard.validate();
    let keys: Vec<String> =
        report.keys_per_index.iter().map(|(name, keys)| format!("{name}: {keys}")).collect();
    let mut output = vec![format!("{} documents, {}", report.documents, keys.join(", "))];
    output.extend(report.errors);
    output.join("\n")
}

fn show_keys(spec: &catalog::IndexSpec, document: DocRef<'_>, keys: &index::IndexKeys) -> String {
    let texts = keys.keys.iter().map(|fields| show_fields(spec, document, fields));
    let texts: Vec<String> = texts.collect();
    let arrays: Vec<String> = keys.arrays.iter().map(|(field, at)| format!("{field}.{at}")).collect();
    if arrays.is_empty() {
        texts.join(" ")
    } else {
        format!("{} arrays at {}", texts.join(" "), arrays.join(" "))
    }
}

fn show_fields(spec: &catalog::IndexSpec, document: DocRef<'_>, fields: &[u8]) -> String {
    let values = index::values_of_key(spec, document, fields).unwrap_or_default();
    let values: Vec<String> = values.iter().map(show).collect();
    format!("({})", values.join(", "))
}

/// One line for each change of a key, with keys as the values that they encode.
fn show_batch(shard: &Shard, before: &dyn View, evaluation: &Evaluation) -> Vec<String> {
    evaluation.batch.ops.iter().map(|op| show_op(shard, before, op)).collect()
}

fn show_op(shard: &Shard, before: &dyn View, op: &KvOp) -> String {
    let (verb, key) = match op {
        KvOp::Put { key, .. } => ("put", key),
        KvOp::Delete { key } => ("delete", key),
    };
    let what = match (key.first(), op.value()) {
        (Some(&encoding::TAG_DOCUMENT), Some(value)) => {
            let stored = encoding::decode_document(key, value).expect("intact");
            format!("document {} at {}", show_document(&stored.document.to_document()), stored.commit.counter)
        }
        (Some(&encoding::TAG_DOCUMENT), None) => {
            let old = before.get(key).expect("readable").expect("a deleted document was there");
            format!("document {}", show_id(&encoding::decode_document(key, &old).expect("intact").document))
        }
        (Some(&encoding::TAG_INDEX), _) => {
            format!("entry {}", show_entry(shard, before, key, op.value().is_some()))
        }
        (Some(&encoding::TAG_RETRY), _) => "retry record".to_owned(),
        (_, Some(value)) if key == encoding::COUNT_KEY => {
            let count = encoding::Count::decode(Some(value)).expect("intact");
            format!("count of {} documents", count.documents)
        }
        _ => "state".to_owned(),
    };
    format!("{verb} {what}")
}

fn show_entry(shard: &Shard, before: &dyn View, key: &[u8], is_put: bool) -> String {
    let id = IndexId(u32::from_be_bytes(key[1..5].try_into().expect("four bytes")));
    let spec = &shard.state().index(id).expect("the index exists").spec;
    let after = shard.view();
    let view = if is_put { after.as_ref() } else { before };
    let value = view.get(key).expect("readable").expect("the entry is there");
    let entry = encoding::decode_index_entry(key, &value).expect("intact");
    let document_key = entry.document_key();
    let stored = view.get(&document_key).expect("readable").expect("the document is there");
    let document = encoding::decode_document(&document_key, &stored).expect("intact").document;
    format!("{} {} of {}", spec.name, show_fields(spec, document.as_doc(), entry.fields), show_id(&document))
}

fn show_result(result: &StatementResult) -> String {
    let repeated = if result.repeated { " (repeated)" } else { "" };
    let outcome = match &result.outcome {
        Err(error) => match &error.details {
            Some(details) => {
                let details = Value::Document(DocRef::Raw(document::RawDoc::new(details))).to_bson();
                format!("{error} {}", show(&details))
            }
            None => error.to_string(),
        },
        Ok(Outcome::Inserted) => "inserted".to_owned(),
        Ok(Outcome::Updated { matched, modified, upserted, document }) => {
            let upserted = upserted.as_ref().map_or_else(String::new, |id| format!(" upserted {}", show(id)));
            format!("matched {matched} modified {modified}{upserted}{}", show_returned(document.as_ref()))
        }
        Ok(Outcome::Deleted { deleted, document }) => {
            format!("deleted {deleted}{}", show_returned(document.as_ref()))
        }
        Ok(Outcome::LostCandidate) => "lost its candidate".to_owned(),
    };
    format!("{}: {outcome}{repeated}", result.statement)
}

fn show_returned(document: Option<&DocBuf>) -> String {
    document
        .map_or_else(String::new, |document| format!(" returned {}", show_document(&document.to_document())))
}

fn show_id(document: &DocBuf) -> String {
    document.as_doc().get("_id").map_or_else(String::new, |id| show(&id.to_bson()))
}

fn show_document(document: &Document) -> String {
    show(&Bson::Document(document.clone()))
}

fn lines(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join("\n")
}
