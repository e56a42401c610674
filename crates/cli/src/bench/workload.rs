//! The workloads: which operations in which shares, and how they pick their documents.

use super::distribution::Distribution;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum Workload {
    /// YCSB A: half reads, half updates, zipfian.
    A,
    /// YCSB B: 95% reads, 5% updates, zipfian.
    B,
    /// YCSB C: reads, zipfian.
    C,
    /// YCSB D: 95% reads of the latest documents, 5% inserts.
    D,
    /// YCSB E: 95% short range scans, 5% inserts, zipfian.
    E,
    /// YCSB F: half reads, half read-modify-writes, zipfian.
    F,
    /// Fill the collection with batches.
    #[value(name = "load")]
    Load,
    /// Point reads by _id, uniform.
    #[value(name = "read")]
    Read,
    /// Updates of one field by _id, uniform.
    #[value(name = "update")]
    Update,
    /// Inserts of single documents.
    #[value(name = "insert")]
    Insert,
    /// Filters without an index that match nothing: each reads the whole collection.
    #[value(name = "scan")]
    Scan,
}

/// One kind of request, as it appears in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// A document by `_id`.
    Read,
    /// One field of a document by `_id`.
    Update,
    /// A new document.
    Insert,
    /// Up to 100 documents in the order of `_id`.
    RangeScan,
    /// A read, then an update of the same document.
    ReadModifyWrite,
    /// The whole collection against a filter.
    FilterScan,
    /// A batch of new documents.
    InsertBatch,
}

impl Operation {
    /// The name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Update => "update",
            Operation::Insert => "insert",
            Operation::RangeScan => "range scan",
            Operation::ReadModifyWrite => "read-modify-write",
            Operation::FilterScan => "filter scan",
            Operation::InsertBatch => "insert batch",
        }
    }

    /// Whether it waits for an fsync.
    pub(super) fn is_write(self) -> bool {
        !matches!(self, Operation::Read | Operation::RangeScan | Operation::FilterScan)
    }
}

impl Workload {
    /// The operation for a number drawn uniformly from 0 to 99.
    pub(super) fn operation(self, percent: u32) -> Operation {
        let (common, share, rare) = match self {
            Workload::A => (Operation::Read, 50, Operation::Update),
            Workload::B => (Operation::Read, 95, Operation::Update),
            Workload::C | Workload::Read => (Operation::Read, 100, Operation::Read),
            Workload::D => (Operation::Read, 95, Operation::Insert),
            Workload::E => (Operation::RangeScan, 95, Operation::Insert),
            Workload::F => (Operation::Read, 50, Operation::ReadModifyWrite),
            Workload::Load => (Operation::InsertBatch, 100, Operation::InsertBatch),
            Workload::Update => (Operation::Update, 100, Operation::Update),
            Workload::Insert => (Operation::Insert, 100, Operation::Insert),
            Workload::Scan => (Operation::FilterScan, 100, Operation::FilterScan),
        };
        if percent < share { common } else { rare }
    }

    /// How documents are picked.
    pub(super) fn distribution(self, documents: u64) -> Distribution {
        match self {
            Workload::A | Workload::B | Workload::C | Workload::E | Workload::F => Distribution::zipfian(),
            Workload::D => Distribution::latest(documents),
            _ => Distribution::Uniform,
        }
    }
}
