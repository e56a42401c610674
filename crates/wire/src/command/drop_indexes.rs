//! `dropIndexes`: removes indexes.

use base::{Error, Result};
use document::Value;
use futures::FutureExt;
use futures::future::BoxFuture;
use router::command::IndexSelector;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, required};
use crate::reply::Reply;

const FIELDS: &[Field] = &[required("index", Accepts::StringObjectOrArray)];

pub(crate) const SPEC: Spec = Spec {
    aliases: &["deleteIndexes"],
    fields: FIELDS,
    writes: true,
    api_v1: true,
    ..Spec::later("dropIndexes", "Removes indexes.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let selector = selector(call)?;
        let all = selector == IndexSelector::All;
        let before = call.state.backend.drop_indexes(&call.context, call.namespace()?, selector).await?;
        let mut reply = Reply::new();
        reply.count("nIndexesWas", before as u64);
        if all {
            reply.str("msg", "non-_id indexes dropped for collection");
        }
        Ok(reply.ok())
    }
    .boxed()
}

fn selector(call: &Call<'_>) -> Result<IndexSelector> {
    match call.fields.value("index") {
        Some(Value::String("*")) => Ok(IndexSelector::All),
        Some(Value::String(name)) => Ok(IndexSelector::Names(vec![name.to_owned()])),
        Some(Value::Document(key)) => Ok(IndexSelector::Key(key.to_document())),
        Some(Value::Array(names)) => {
            let names: Option<Vec<String>> =
                names.iter().map(|name| name.as_str().map(str::to_owned)).collect();
            let names = names.ok_or_else(|| {
                Error::type_mismatch("BSON field 'dropIndexes.index' must be an array of strings")
            })?;
            Ok(IndexSelector::Names(names))
        }
        _ => Err(Error::type_mismatch("BSON field 'dropIndexes.index' names no index")),
    }
}
