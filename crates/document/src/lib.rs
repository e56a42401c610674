//! What documents mean: BSON values and their order, key encoding, paths, filters, updates, projections,
//! expressions and pipeline stages.
//!
//! Pure: nothing in here does I/O, reads a clock or draws a random number; what an operator needs of those comes in
//! through its context. Called by `query` (one shard's work) and `router` (merging, pipelines).

pub mod context;
pub mod display;
pub mod expression;
pub mod filter;
pub mod key;
pub mod number;
pub mod order;
pub mod path;
pub mod pipeline;
pub mod projection;
pub mod shard_key;
pub mod sort;
pub mod update;
pub mod validate;
pub mod value;

pub use context::{EvalContext, Variables};
pub use shard_key::ShardKey;
pub use value::{ArrayRef, DocBuf, DocRef, Kind, RawDoc, Value};
