//! Replicas over the engines in memory, by scripts and by programs. One binary: linking takes longer than running.

mod crash;
mod group;
mod load;
mod protocol;
mod support;
