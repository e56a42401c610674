//! `ping`: answers ok.

use base::Result;

use super::Spec;
use crate::call::Call;
use crate::reply::Reply;

pub(crate) const SPEC: Spec = Spec { api_v1: true, ..Spec::now("ping", "Answers ok.", run) };

fn run(_call: &Call<'_>) -> Result<Reply> {
    Ok(Reply::new().ok())
}
