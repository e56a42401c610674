//! `dropDatabase`: removes all collections of a database.

use base::{Code, Error, Result};
use document::Value;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec {
    writes: true,
    api_v1: true,
    ..Spec::later("dropDatabase", "Removes all collections of a database.", run)
};

fn run<'c>(call: &'c Call<'_>) -> BoxFuture<'c, Result<Reply>> {
    async move {
        if !matches!(call.target.decode(), Some(Value::Int32(1) | Value::Int64(1) | Value::Double(1.0))) {
            return Err(Error::bad_value("have to pass 1 as db parameter"));
        }
        if call.database == "admin" {
            let message = "Dropping the 'admin' database is prohibited.";
            return Err(Error::new(Code::ILLEGAL_OPERATION, message));
        }
        call.state.backend.drop_database(&call.context, call.database).await?;
        let mut reply = Reply::new();
        reply.str("dropped", call.database);
        Ok(reply.ok())
    }
    .boxed()
}
