//! Tests of the storage engines: scripts and a model that both implementations pass, images of disks after crashes,
//! and injected faults.

mod crash_log;
mod crash_store;
mod directory;
mod faulty_files;
mod group_commit;
mod keyspaces;
mod model;
mod scripts;
mod support;
