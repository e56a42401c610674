//! `connectionStatus`: who is authenticated on the connection; there are no users yet, so nobody is.

use base::Result;

use super::Spec;
use crate::call::Call;
use crate::fields::{Accepts, Field, field};
use crate::reply::Reply;

const FIELDS: &[Field] = &[field("showPrivileges", Accepts::BoolOrNumber)];

pub(crate) const SPEC: Spec =
    Spec { fields: FIELDS, ..Spec::now("connectionStatus", "Who is authenticated on the connection.", run) };

fn run(call: &Call<'_>) -> Result<Reply> {
    let mut reply = Reply::new();
    reply.begin_document("authInfo");
    reply.values("authenticatedUsers", &[]);
    reply.values("authenticatedUserRoles", &[]);
    if call.fields.bool("showPrivileges") == Some(true) {
        reply.values("authenticatedUserPrivileges", &[]);
    }
    reply.end();
    Ok(reply.ok())
}
