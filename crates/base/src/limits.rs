//! Every limit of the product, in one place. A limit is checked before memory is spent on what it bounds.

/// Largest document a client may store, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Room above [`DOCUMENT_BYTES_MAX`] for documents the server itself makes (replies, pipeline results).
pub const DOCUMENT_INTERNAL_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + 16 * 1024;
/// Largest wire message, in bytes, its header included.
pub const MESSAGE_BYTES_MAX: usize = 48_000_000;
/// Deepest nesting of documents and arrays.
pub const NESTING_MAX: usize = 100;
/// Most write statements in one command.
pub const WRITE_BATCH_MAX: usize = 100_000;
/// Longest regular expression pattern, in bytes.
pub const REGEX_BYTES_MAX: usize = 16_384;
/// Steps a backtracking regular expression may take for one value.
pub const REGEX_BACKTRACK_MAX: usize = 1_000_000;
/// Longest namespace (`database.collection`), in bytes.
pub const NAMESPACE_BYTES_MAX: usize = 255;
/// Longest database name, in bytes.
pub const DATABASE_NAME_BYTES_MAX: usize = 63;
/// Most indexes of one collection, the one on `_id` included.
pub const INDEXES_MAX: usize = 64;
/// Most fields of a compound index.
pub const INDEX_FIELDS_MAX: usize = 32;
/// Most index entries that one document may have in one index.
pub const INDEX_KEYS_PER_DOCUMENT_MAX: usize = 100_000;
/// Longest key of a document or an index entry, in bytes: the store's keys have 16-bit lengths.
pub const KEY_BYTES_MAX: usize = 65_000;
/// Most stages of an aggregation pipeline.
pub const PIPELINE_STAGES_MAX: usize = 1_000;
/// Memory one blocking sort or group may use, in bytes; past it a command fails with code 292.
pub const SORT_MEMORY_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Documents in the first batch of a cursor when the client names no size.
pub const FIRST_BATCH_DOCUMENTS: usize = 101;
/// Most bytes of documents in one batch of a cursor.
pub const BATCH_BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
/// Most open cursors of one connection.
pub const CURSORS_PER_CONNECTION_MAX: usize = 1_000;
/// Idle time after which a cursor is closed, in milliseconds.
pub const CURSOR_IDLE_MS_MAX: u64 = 10 * 60 * 1000;
/// Oldest a read view may become before its cursor takes a new one, in milliseconds.
pub const READ_VIEW_AGE_MS_MAX: u64 = 60 * 1000;
/// Idle time after which a session and its retry record end, in milliseconds.
pub const SESSION_IDLE_MS_MAX: u64 = 30 * 60 * 1000;
/// Most client connections of one node.
pub const CONNECTIONS_MAX: usize = 65_536;
/// Most bytes of keys and values in one Raft entry, unless a single write is larger.
pub const ENTRY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes of proposed and not yet applied writes of one shard; further writes wait.
pub const SHARD_IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Entries of a shard's Raft log that are kept although the store durably has them.
pub const RAFT_LOG_ENTRIES_MAX: u64 = 20_000;
/// Bytes of a shard's Raft log after which it is compacted.
pub const RAFT_LOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes applied to the store after which it is flushed without waiting for the timer.
pub const STORE_UNFLUSHED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most requests waiting in one owner loop's mailbox; further senders wait.
pub const MAILBOX_REQUESTS_MAX: usize = 16_384;
/// Candidates of a multi-document update or delete that go into the owner loop at a time.
pub const MULTI_WRITE_BATCH: usize = 1_000;
/// Largest message between nodes, in bytes: a client's largest command with what surrounds it, or a Raft message with the
/// largest entry.
pub const PEER_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of Raft messages and of requests, each, that go into one frame between nodes, unless a single one is larger.
pub const PEER_FRAME_BYTES: usize = 512 * 1024;
/// Most bytes of Raft messages that wait to be sent to one node; further ones are dropped.
pub const PEER_RAFT_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of unanswered requests to one node; further ones wait. Larger than [`PEER_MESSAGE_BYTES_MAX`] would be no use.
pub const PEER_REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What the smallest request counts towards [`PEER_REQUEST_BYTES_MAX`], in bytes: bounds how many there are.
pub const PEER_REQUEST_BYTES_MIN: usize = 64 * 1024;
/// Most bytes of answers that wait to be sent to one node; further ones wait in their tasks.
pub const PEER_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Deepest nesting of documents between nodes: a filter around a document, an array around that, nest deeper than a
/// client's document.
pub const PEER_NESTING_MAX: usize = 2 * NESTING_MAX;
/// Snapshots that a node sends at a time, and that it receives at a time.
pub const SNAPSHOTS_AT_A_TIME: usize = 2;
/// Bytes of snapshots that a node sends in a second beside clients; more where it serves none.
pub const SNAPSHOT_BYTES_PER_SECOND_DEFAULT: u64 = 24 * 1024 * 1024;
/// Free bytes of disk below which client writes are refused. Compaction goes on then: after a fast load it was seen to take
/// 500 MiB more before it gave any back.
pub const DISK_RESERVE_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;

/// Most connections to a node's admin address at a time; further ones wait.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Largest head of a request to a node's admin address, in bytes. Bodies are never read.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 16 * 1024;
/// How long one connection to a node's admin address may take from its first byte to its end, in milliseconds.
pub const ADMIN_CONNECTION_MS_MAX: u64 = 10_000;

const _: () =
    assert!(DOCUMENT_BYTES_MAX * 2 < MESSAGE_BYTES_MAX, "a message carries a document and its command");
const _: () = assert!(
    MESSAGE_BYTES_MAX + 2 * PEER_FRAME_BYTES < PEER_MESSAGE_BYTES_MAX,
    "a client's largest command fits a message between nodes",
);
const _: () = assert!(ENTRY_BYTES_MAX < SHARD_IN_FLIGHT_BYTES_MAX, "at least one entry must be in flight");
