//! `createIndexes`: builds indexes, while writes go on.

use base::limits::INDEX_FIELDS_MAX;
use base::{Code, Error, Result};
use bson::{Bson, Document};
use document::{DocBuf, DocRef, RawDoc, Value};
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::{CreateIndexesCommand, IndexRequest};

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, Fields, field, ignored, refused, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    ignored("commitQuorum", Accepts::Any, "every replica maintains an index before it is used"),
    ignored("ignoreUnknownIndexOptions", Accepts::Bool, "unknown options are refused"),
    required("indexes", Accepts::Array),
];

pub(crate) const INDEX: &[Field] = &[
    ignored("background", Accepts::Any, "every build lets writes go on"),
    refused("bits", Accepts::Integer),
    refused("bucketSize", Accepts::Integer),
    refused("clustered", Accepts::Bool),
    refused("collation", Accepts::Object),
    refused("default_language", Accepts::String),
    refused("dropDups", Accepts::Any),
    refused("expireAfterSeconds", Accepts::Any),
    refused("hidden", Accepts::BoolOrNumber),
    field("key", Accepts::Object),
    refused("language_override", Accepts::String),
    refused("max", Accepts::Integer),
    refused("min", Accepts::Integer),
    field("name", Accepts::String),
    ignored("ns", Accepts::String, "legacy"),
    refused("partialFilterExpression", Accepts::Object),
    refused("prepareUnique", Accepts::BoolOrNumber),
    refused("sparse", Accepts::BoolOrNumber),
    ignored("storageEngine", Accepts::Object, "there is one storage engine"),
    refused("textIndexVersion", Accepts::Integer),
    field("unique", Accepts::BoolOrNumber),
    field("v", Accepts::Integer),
    refused("weights", Accepts::Any),
    refused("wildcardProjection", Accepts::Object),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    writes: true,
    api_v1: true,
    ..Spec::later("createIndexes", "Builds indexes.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let documents = call.documents("indexes")?;
        if documents.is_empty() {
            return Err(Error::bad_value("Must specify at least one index to create"));
        }
        let indexes = documents.iter().map(index).collect::<Result<Vec<_>>>()?;
        let command = CreateIndexesCommand { namespace: call.namespace()?, indexes };
        let outcome = call.state.backend.create_indexes(&call.context, command).await?;
        let mut reply = Reply::new();
        reply.count("numIndexesBefore", outcome.num_indexes_before as u64);
        reply.count("numIndexesAfter", outcome.num_indexes_after as u64);
        reply.bool("createdCollectionAutomatically", outcome.created_collection);
        if outcome.num_indexes_before == outcome.num_indexes_after {
            reply.str("note", "all indexes already exist");
        }
        Ok(reply.ok())
    }
    .boxed()
}

fn index(document: &DocBuf) -> Result<IndexRequest> {
    check_known(document)?;
    let fields = Fields::read("createIndexes.indexes", INDEX, document.as_raw())?;
    let missing = |name: &str| {
        Error::failed_to_parse(format!("The '{name}' field is a required property of an index specification"))
    };
    let key = fields.element("key").ok_or_else(|| missing("key"))?;
    let name = fields.str("name").ok_or_else(|| missing("name"))?;
    if name.is_empty() || name == "*" {
        return Err(Error::new(Code::CANNOT_CREATE_INDEX, format!("The index name '{name}' is not valid")));
    }
    match fields.integer("v")? {
        None | Some(1 | 2) => {}
        Some(other) => {
            let message =
                format!("Invalid index specification: cannot create an index with version v={other}");
            return Err(Error::new(Code::CANNOT_CREATE_INDEX, message));
        }
    }
    Ok(IndexRequest {
        key: key_pattern(DocRef::Raw(RawDoc::new(key.value)))?,
        name: name.to_owned(),
        unique: fields.bool("unique").unwrap_or(false),
    })
}

/// Indexes have words of their own for an unknown option.
fn check_known(document: &DocBuf) -> Result<()> {
    let known = |name: &str| INDEX.iter().any(|field| field.name == name);
    match document.as_doc().iter().find(|(name, _)| !known(name)) {
        Some((name, _)) => {
            let message = format!(
                "The field '{name}' is not valid for an index specification. Specification: {}",
                document.to_document()
            );
            Err(Error::new(Code::INVALID_INDEX_SPECIFICATION_OPTION, message))
        }
        None => Ok(()),
    }
}

/// The key pattern with each order as 1 or -1.
fn key_pattern(key: DocRef<'_>) -> Result<Document> {
    let cannot = |message: String| Err(Error::new(Code::CANNOT_CREATE_INDEX, message));
    let mut pattern = Document::new();
    for (path, order) in key.iter() {
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return cannot("Index keys cannot contain an empty field.".to_owned());
        }
        if path.split('.').any(|part| part.starts_with('$')) {
            return cannot(
                "Index key contains an illegal field name: field name starts with '$'.".to_owned(),
            );
        }
        if pattern.contains_key(path) {
            return cannot(format!("The field '{path}' appears more than once in the index key pattern"));
        }
        let order = match order {
            Value::String(plugin) => return cannot(format!("Unknown index plugin '{plugin}'")),
            other => sign(&other),
        };
        match order {
            Some(order) => pattern.insert(path, Bson::Int32(order)),
            None => {
                return cannot("Values in the index key pattern must be numbers other than 0.".to_owned());
            }
        };
    }
    if pattern.is_empty() {
        return cannot("Index keys cannot be an empty object.".to_owned());
    }
    if pattern.len() > INDEX_FIELDS_MAX {
        return cannot(format!("An index key pattern may have at most {INDEX_FIELDS_MAX} fields"));
    }
    Ok(pattern)
}

fn sign(order: &Value<'_>) -> Option<i32> {
    let positive = match order {
        Value::Int32(number) => (*number != 0).then_some(*number > 0),
        Value::Int64(number) => (*number != 0).then_some(*number > 0),
        Value::Double(number) => (*number != 0.0 && !number.is_nan()).then_some(*number > 0.0),
        _ => None,
    }?;
    Some(if positive { 1 } else { -1 })
}
