//! `drop`: removes a collection with its documents and indexes. What is not there is dropped already.

use base::{Code, Result};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, refused};
use crate::reply::Reply;

const FIELDS: &[Field] = &[refused("collectionUUID", Accepts::Any)];

pub(crate) const SPEC: Spec =
    Spec { fields: FIELDS, writes: true, api_v1: true, ..Spec::later("drop", "Removes a collection.", run) };

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let namespace = call.namespace()?;
        let name = namespace.to_string();
        let mut reply = Reply::new();
        match call.state.backend.drop_collection(&call.context, namespace).await {
            Ok(indexes) => {
                reply.count("nIndexesWas", indexes as u64);
                reply.str("ns", &name);
            }
            Err(error) if error.code == Code::NAMESPACE_NOT_FOUND => {}
            Err(error) => return Err(error),
        }
        Ok(reply.ok())
    }
    .boxed()
}
