//! The router over a real replica host with engines in memory, as one binary.

#[path = "router/commands.rs"]
mod commands;
#[path = "router/config.rs"]
mod config;
#[path = "router/shards.rs"]
mod shards;
#[path = "router/support.rs"]
mod support;
