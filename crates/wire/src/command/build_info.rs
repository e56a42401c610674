//! `buildInfo`: the protocol's version and the product's own.

use base::Result;
use base::limits::DOCUMENT_BYTES_MAX;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;
use crate::{MONGODB_VERSION, MONGODB_VERSION_ARRAY};

pub(crate) const SPEC: Spec = Spec {
    aliases: &["buildinfo"],
    ..Spec::now("buildInfo", "The protocol version that is spoken, and the version of PSDB.", run)
};

fn run(_call: &Call<'_>) -> Result<Reply> {
    let mut reply = Reply::new();
    reply.str("version", MONGODB_VERSION);
    reply.values("versionArray", &MONGODB_VERSION_ARRAY.map(bson::Bson::Int32));
    reply.str("psdb", env!("CARGO_PKG_VERSION"));
    reply.str("gitVersion", "");
    reply.values("modules", &[]);
    reply.str("allocator", "system");
    reply.str("javascriptEngine", "none");
    reply.i32("bits", i32::try_from(usize::BITS).unwrap_or(64));
    reply.bool("debug", cfg!(debug_assertions));
    reply.count("maxBsonObjectSize", DOCUMENT_BYTES_MAX as u64);
    reply.values("storageEngines", &[bson::Bson::String("fjall".to_owned())]);
    Ok(reply.ok())
}
