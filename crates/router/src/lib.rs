//! Turns a client's command into work for shards and merges the answers.
//!
//! Called by `wire` (one task per connection) with typed commands ([`command`]); calls the replica host of this node.
//! Steps of every operation: resolve the collection in the catalog view, choose the shards by the filter's shard key,
//! ask each, retry what a failover interrupted until the operation's deadline, merge. Always holds: the router keeps
//! no state of its own but cursors; every write carries an identity, so that asking again is harmless.

pub mod command;
