//! The page of metrics: every family, with its name, its type and what it means.
//!
//! Called for `GET /metrics`. The sentences here are those of `docs/OPERATING.md`; a test compares the two. Always holds:
//! the number of samples does not grow with shards, collections or clients.

use std::sync::atomic::{AtomicU64, Ordering};

use base::LogIndex;
use catalog::NodeState;
use replica::{Host, HostMetrics, ReplicaStatus};
use wire::metrics::{Counter, Metrics};

use super::exposition::Exposition;
use super::health::{NodeView, Running};
use crate::facts;

/// Puts the page together. Before the node takes clients it has what is known of the process alone.
pub(super) fn collect(view: &NodeView) -> Result<String, String> {
    let mut out = Exposition::default();
    node(&mut out, view);
    process(&mut out);
    if let (Some(host), Some(running)) = (view.host(), view.running()) {
        clients(&mut out, running);
        commands(&mut out, running);
        raft_log(&mut out, running);
        store(&mut out, running);
        replicas(&mut out, &host.replicas());
        replication(&mut out, &host.metrics());
        snapshots(&mut out, running, &host.metrics());
        frames(&mut out, running);
        copies(&mut out, running);
        cluster(&mut out, host, running);
    }
    out.finish()
}

fn node(out: &mut Exposition, view: &NodeView) {
    let version = env!("CARGO_PKG_VERSION");
    out.gauges("psdb_build_info", "Always 1; the label is the node's version.", "version", [(version, 1.0)]);
    out.gauge("psdb_uptime_seconds", "Time since the node was started.", view.uptime_seconds());
    let ready = if view.readiness().is_ok() { 1.0 } else { 0.0 };
    out.gauge("psdb_ready", "1 while /readyz answers ok, else 0.", ready);
}

fn process(out: &mut Exposition) {
    let process = facts::process_numbers();
    out.counter(
        "process_cpu_seconds_total",
        "Processor time that the process has used, by itself and in the kernel.",
        process.cpu_seconds,
    );
    out.gauge(
        "process_resident_memory_bytes",
        "Memory of the process that is in RAM.",
        number(process.resident_bytes),
    );
    out.gauge("process_virtual_memory_bytes", "Address space of the process.", number(process.virtual_bytes));
    out.gauge(
        "process_start_time_seconds",
        "When the process was started, since the epoch.",
        process.start_time_seconds,
    );
    out.gauge("process_open_fds", "File descriptors that are open.", number(process.open_files));
    out.gauge("process_max_fds", "File descriptors that may be open.", number(process.open_files_max));
}

fn clients(out: &mut Exposition, running: &Running) {
    let state = &running.state;
    let metrics = state.metrics();
    let open = metrics.connections.load(Ordering::Relaxed);
    out.gauge("psdb_connections", "Connections of clients that are open.", open as f64);
    out.gauge(
        "psdb_connections_active",
        "Connections of clients that run a command right now.",
        size(state.active_connections()),
    );
    out.gauge(
        "psdb_connections_max",
        "Connections of clients that may be open.",
        size(state.connections_max()),
    );
    out.counter(
        "psdb_connections_accepted_total",
        "Connections of clients that were accepted.",
        count(&metrics.connections_created),
    );
    out.counter(
        "psdb_connections_rejected_total",
        "Connections of clients that were refused because too many were open.",
        count(&metrics.connections_rejected),
    );
    out.counter("psdb_received_bytes_total", "Bytes received from clients.", count(&metrics.bytes_in));
    out.counter("psdb_sent_bytes_total", "Bytes sent to clients.", count(&metrics.bytes_out));
    out.counter("psdb_requests_total", "Messages received from clients.", count(&metrics.requests));
    out.gauge("psdb_cursors_open", "Cursors that are open.", size(state.open_cursors()));
}

fn commands(out: &mut Exposition, running: &Running) {
    let state = &running.state;
    let of = |counter: fn(&wire::metrics::CommandCounts) -> &Counter| {
        state.command_counts().map(move |(name, counts)| (name, count(counter(counts))))
    };
    out.counters("psdb_commands_total", "Commands that were called.", "command", of(|counts| &counts.total));
    out.counters(
        "psdb_commands_failed_total",
        "Commands that answered an error.",
        "command",
        of(|counts| &counts.failed),
    );
    operations(out, state.metrics());
    let durations = &state.metrics().durations;
    out.histograms(
        "psdb_command_duration_seconds",
        "How long commands took: those that read documents, write documents, or do something else. Those that may \
         wait on purpose (hello) are not counted.",
        "kind",
        [
            ("read", durations.read.read()),
            ("write", durations.write.read()),
            ("command", durations.command.read()),
        ],
    );
}

fn operations(out: &mut Exposition, metrics: &Metrics) {
    let operations = &metrics.operations;
    out.counters(
        "psdb_operations_total",
        "Operations of clients: documents inserted, update and delete statements, queries, further batches, and all \
         other commands.",
        "operation",
        [
            ("insert", count(&operations.insert)),
            ("query", count(&operations.query)),
            ("update", count(&operations.update)),
            ("delete", count(&operations.delete)),
            ("getmore", count(&operations.get_more)),
            ("command", count(&operations.command)),
        ],
    );
}

fn raft_log(out: &mut Exposition, running: &Running) {
    let log = running.log_writer.statistics();
    out.counter("psdb_raft_log_fsyncs_total", "Fsyncs of the Raft log.", number(log.fsyncs));
    out.histogram(
        "psdb_raft_log_fsync_duration_seconds",
        "How long writes of the Raft log took, their fsync included.",
        &log.durations,
    );
    out.counter(
        "psdb_raft_log_fsynced_batches_total",
        "Batches of replicas that fsyncs of the Raft log carried; divided by the fsyncs it is the group commit.",
        number(log.batches),
    );
    out.counter(
        "psdb_raft_log_fsynced_entries_total",
        "Entries that fsyncs of the Raft log carried.",
        number(log.entries),
    );
    out.counter(
        "psdb_raft_log_fsynced_bytes_total",
        "Bytes of entries that fsyncs of the Raft log carried.",
        number(log.bytes),
    );
}

fn store(out: &mut Exposition, running: &Running) {
    let store = running.store.statistics();
    out.gauge(
        "psdb_store_cache_bytes",
        "Blocks of tables that are in the store's cache.",
        number(store.cache_bytes),
    );
    out.gauge(
        "psdb_store_cache_max_bytes",
        "What the store's cache may hold.",
        number(store.cache_bytes_max),
    );
    out.gauge(
        "psdb_store_memtable_bytes",
        "Changes in memory that the store has not written to tables yet.",
        number(store.memtable_bytes),
    );
    out.gauge("psdb_store_table_bytes", "Tables of the store on disk.", number(store.table_bytes));
    out.gauge("psdb_store_journals", "Files of the store's journal.", number(store.journals));
    out.gauge("psdb_store_compactions_active", "Compactions that run.", number(store.compactions_active));
    out.counter("psdb_store_compactions_total", "Compactions that have ended.", number(store.compactions));
    let free_bytes = running.free_bytes.get();
    out.gauge(
        "psdb_disk_free_bytes",
        "Free space on the disk of the data directory at the last look: a second ago at most, unless the disk stands \
         still.",
        number(free_bytes),
    );
    out.gauge(
        "psdb_disk_reserve_bytes",
        "Free space below which the node refuses writes and hands over to others.",
        number(running.disk_reserve_bytes),
    );
}

fn replicas(out: &mut Exposition, replicas: &[ReplicaStatus]) {
    let among = |wanted: &dyn Fn(&ReplicaStatus) -> bool| {
        size(replicas.iter().filter(|replica| wanted(replica)).count())
    };
    out.gauges(
        "psdb_replicas",
        "Replicas on this node by role, that of the catalog included.",
        "role",
        [
            ("leader", among(&|replica| replica.is_leader)),
            ("follower", among(&|replica| !replica.is_leader && replica.is_voter)),
            ("learner", among(&|replica| !replica.is_leader && !replica.is_voter)),
        ],
    );
    let behind = |replica: &ReplicaStatus| entries_between(replica.applied, replica.commit);
    out.gauge(
        "psdb_raft_unapplied_entries",
        "Entries that are committed and not applied yet, over all replicas of this node.",
        number(replicas.iter().map(behind).sum()),
    );
    out.gauge(
        "psdb_raft_unapplied_entries_max",
        "Entries that are committed and not applied yet, in the replica of this node that has most of them.",
        number(replicas.iter().map(behind).max().unwrap_or(0)),
    );
}

fn replication(out: &mut Exposition, metrics: &HostMetrics) {
    let mut add = |name, help, counter: &AtomicU64| out.counter(name, help, load(counter));
    add(
        "psdb_shard_commands_evaluated_total",
        "Commands that replicas of this node evaluated as leaders.",
        &metrics.commands_evaluated,
    );
    add(
        "psdb_shard_commands_proposed_total",
        "Commands that went into entries; divided by the entries proposed it is the batching.",
        &metrics.commands_proposed,
    );
    add("psdb_raft_entries_proposed_total", "Entries proposed.", &metrics.entries_proposed);
    add("psdb_raft_proposed_bytes_total", "Bytes of entries proposed.", &metrics.bytes_proposed);
    add("psdb_raft_entries_applied_total", "Entries applied to the store.", &metrics.entries_applied);
    add(
        "psdb_raft_batches_applied_total",
        "Batches in which entries were applied to the store.",
        &metrics.batches_applied,
    );
    add(
        "psdb_shard_reads_delayed_total",
        "Reads that had to wait for the store or for a leader.",
        &metrics.reads_delayed,
    );
    add(
        "psdb_shard_throttled_total",
        "Times that a leader took no more commands because too many bytes were on their way.",
        &metrics.throttled,
    );
    add(
        "psdb_raft_log_compactions_total",
        "Times that a replica's Raft log was compacted.",
        &metrics.compactions,
    );
    add("psdb_store_flushes_total", "Times that the store was made durable.", &metrics.flushes);
}

fn snapshots(out: &mut Exposition, running: &Running, metrics: &HostMetrics) {
    let sent = running.network.snapshot_counts();
    out.counter("psdb_snapshots_sent_total", "Snapshots of replicas sent to other nodes.", load(&sent.sent));
    out.counter(
        "psdb_snapshots_failed_total",
        "Attempts to send a snapshot that failed; each is made again.",
        load(&sent.failed),
    );
    out.counter(
        "psdb_snapshot_sent_bytes_total",
        "Bytes of snapshots sent to other nodes, those of failed attempts included.",
        load(&sent.bytes),
    );
    out.counter(
        "psdb_snapshots_installed_total",
        "Snapshots of replicas received from other nodes and put in place.",
        load(&metrics.snapshots_installed),
    );
}

fn frames(out: &mut Exposition, running: &Running) {
    let sent = running.network.frame_counts();
    out.counter(
        "psdb_peer_frames_sent_total",
        "Frames of messages of replicas and of requests sent to other nodes.",
        load(&sent.frames),
    );
    out.counter(
        "psdb_peer_raft_messages_sent_total",
        "Messages of replicas sent to other nodes: several share a frame.",
        load(&sent.raft_messages),
    );
    out.counter(
        "psdb_peer_requests_sent_total",
        "Requests sent to other nodes: several share a frame.",
        load(&sent.requests),
    );
}

fn copies(out: &mut Exposition, running: &Running) {
    let counts = running.router.copy_counts();
    out.counter(
        "psdb_reshard_shards_copied_total",
        "Shards that this node has copied into those that took their place.",
        load(&counts.shards),
    );
    out.counter(
        "psdb_reshard_copied_bytes_total",
        "Bytes of keys and values that this node has copied from shards into others.",
        load(&counts.bytes),
    );
    out.histogram(
        "psdb_reshard_sealed_duration_seconds",
        "For how long a shard was sealed, its requests waiting, before others took its place.",
        &counts.sealed.read(),
    );
}

fn cluster(out: &mut Exposition, host: &Host, running: &Running) {
    let (mut nodes, mut draining, mut collections) = (0, 0, 0);
    let (mut shards, mut moves, mut reshards) = (0, 0, 0);
    if let Some(catalog) = host.catalog_state() {
        nodes = catalog.nodes().filter(|node| node.replaced_by.is_none()).count();
        draining = catalog.nodes().filter(|node| node.state == NodeState::Draining).count();
        collections = catalog.active().count();
        shards = catalog.active().map(|collection| collection.shard_map.shards.len()).sum();
        let placed = catalog.active().flat_map(|collection| &collection.shard_map.shards);
        moves = placed.map(|shard| shard.leaving.len()).sum();
        reshards = catalog.active().filter(|collection| collection.reshard.is_some()).count();
    }
    out.gauge(
        "psdb_cluster_nodes_draining",
        "Nodes that are being emptied, as this node's copy of the catalog has it.",
        size(draining),
    );
    out.gauge(
        "psdb_cluster_replica_moves",
        "Replicas whose place others are about to take, as this node's copy of the catalog has it.",
        size(moves),
    );
    out.gauge(
        "psdb_cluster_reshards",
        "Collections whose shards are being split, merged or cut anew, as this node's copy of the catalog has it.",
        size(reshards),
    );
    out.gauge(
        "psdb_cluster_nodes",
        "Nodes of the cluster, as this node's copy of the catalog has it.",
        size(nodes),
    );
    out.gauge(
        "psdb_cluster_collections",
        "Collections of the cluster, as this node's copy of the catalog has it.",
        size(collections),
    );
    out.gauge(
        "psdb_cluster_shards",
        "Shards of all collections, as this node's copy of the catalog has it.",
        size(shards),
    );
    let connected = running.network.health().values().filter(|peer| peer.connected).count();
    out.gauge("psdb_peers_connected", "Other nodes that this one has a live connection to.", size(connected));
}

fn entries_between(applied: LogIndex, commit: LogIndex) -> u64 {
    commit.get().saturating_sub(applied.get())
}

fn count(counter: &Counter) -> f64 {
    number(counter.get())
}

fn load(counter: &AtomicU64) -> f64 {
    number(counter.load(Ordering::Relaxed))
}

fn size(value: usize) -> f64 {
    value as f64
}

/// Exact up to 2^53, which the format cannot exceed either.
fn number(value: u64) -> f64 {
    value as f64
}
