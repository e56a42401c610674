//! `validate`: checks that a collection's indexes and documents agree.

use base::Result;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, ignored, refused};
use crate::reply::Reply;

const FIELDS: &[Field] = &[
    ignored("background", Accepts::BoolOrNumber, "every validation runs beside writes"),
    ignored("checkBSONConformance", Accepts::BoolOrNumber, "always done"),
    ignored("full", Accepts::BoolOrNumber, "always done"),
    refused("metadata", Accepts::BoolOrNumber),
    refused("repair", Accepts::BoolOrNumber),
];

pub(crate) const SPEC: Spec = Spec {
    fields: FIELDS,
    ..Spec::later("validate", "Checks that a collection's documents and indexes agree.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        let answer = call.state.backend.validate(&call.context, call.namespace()?).await?;
        Ok(Reply::from_document(&answer).ok())
    }
    .boxed()
}
