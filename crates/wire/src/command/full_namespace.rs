//! What the commands on shards have in common: a collection by its full name, and a shard by a document or by its bounds.
//!
//! Used by the command files. Always holds: bounds are those that `config.chunks` shows, whose numbers stand for hashes.

use base::{Code, Error, Namespace, Result};
use bson::Bson;
use document::Value;
use router::ShardSelector;
use router::config_database::{CONFIG_DATABASE, hash_of_number};

use crate::call::Call;

/// The collection that the command names in full. Fails with `InvalidNamespace` (73), for a collection of the catalog's
/// database too.
pub(super) fn full_namespace(call: &Call<'_>) -> Result<Namespace> {
    let Some(Value::String(name)) = call.target.decode() else {
        let message = format!("{} needs the full name of a collection, as a string", call.spec.name);
        return Err(Error::type_mismatch(message));
    };
    let namespace = Namespace::parse(name)?;
    if namespace.database == CONFIG_DATABASE {
        let message = format!("{namespace} shows the catalog and has no shards");
        return Err(Error::new(Code::INVALID_NAMESPACE, message));
    }
    Ok(namespace)
}

/// The shard that the command means: by one of `documents`, the fields with a document's values, or by `bounds`. Fails with
/// `InvalidOptions` (72) unless there is exactly one of them.
pub(super) fn selector(call: &Call<'_>, documents: &[&str]) -> Result<ShardSelector> {
    let mut given = Vec::new();
    for name in documents {
        given.extend(call.document(name).map(|values| ShardSelector::Owner(values.to_document())));
    }
    if call.fields.element("bounds").is_some() {
        let (first, last) = bounds(call)?;
        given.push(ShardSelector::Span(first, last));
    }
    match (given.pop(), given.is_empty()) {
        (Some(selector), true) => Ok(selector),
        _ => {
            let names = documents.join(", ");
            let message = format!("{} needs exactly one of: {names}, bounds", call.spec.name);
            Err(Error::new(Code::INVALID_OPTIONS, message))
        }
    }
}

/// The first and the last hash that `bounds`, two documents, mean. Fails with `BadValue` (2).
pub(super) fn bounds(call: &Call<'_>) -> Result<(u64, u64)> {
    let given = call.values("bounds");
    let wrong = || {
        Error::bad_value(
            "bounds are two documents as config.chunks shows them, min and max, with a long, MinKey or MaxKey in the \
             first field",
        )
    };
    let [min, max] = given.as_slice() else { return Err(wrong()) };
    let first = match first_value(min) {
        Some(Bson::MinKey) => 0,
        Some(Bson::Int64(number)) => hash_of_number(*number),
        _ => return Err(wrong()),
    };
    let last = match first_value(max) {
        Some(Bson::MaxKey) => u64::MAX,
        Some(Bson::Int64(number)) => hash_of_number(*number).checked_sub(1).ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    if first > last {
        return Err(Error::bad_value("the first of the bounds must be below the second"));
    }
    Ok((first, last))
}

fn first_value(bound: &Bson) -> Option<&Bson> {
    bound.as_document()?.values().next()
}
