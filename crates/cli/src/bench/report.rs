//! The benchmark's report, as tables for people and as JSON for programs.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::Options;
use super::clients::Run;
use super::process::{Process, Usage};
use super::workload::{Operation, Workload};
use crate::output;
use crate::shell::table;

/// What one process used in the measured time.
pub(super) struct ProcessReport {
    process: Process,
    cpu_seconds: f64,
    peak_bytes: u64,
}

impl ProcessReport {
    /// From its usage before and after; none if either is unknown.
    pub(super) fn new(
        process: &Process,
        before: Option<&Usage>,
        after: Option<&Usage>,
    ) -> Option<ProcessReport> {
        let (before, after) = (before?, after?);
        Some(ProcessReport {
            process: process.clone(),
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            peak_bytes: after.peak_bytes,
        })
    }
}

/// Everything that was measured.
pub(super) struct Report<'o> {
    pub(super) options: &'o Options,
    pub(super) run: Run,
    pub(super) processes: Vec<ProcessReport>,
    /// Fsyncs of the server's Raft log in the measured time.
    pub(super) fsyncs: Option<FsyncReport>,
}

/// Fsyncs of the server's Raft log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FsyncReport {
    /// How many.
    pub(super) count: u64,
    /// Time spent in them, in microseconds, with what it took to write the entries.
    pub(super) total_us: u64,
}

impl FsyncReport {
    fn mean_us(self) -> Option<f64> {
        (self.count > 0).then(|| self.total_us as f64 / self.count as f64)
    }
}

impl Report<'_> {
    /// For people.
    pub(super) fn table(&self) -> String {
        let width = output::width();
        let mut parts = vec![self.headline()];
        let rows: Vec<Vec<String>> = self
            .run
            .latencies
            .iter()
            .map(|(operation, histogram)| self.latency_row(*operation, histogram))
            .collect();
        let header = ["operation", "count", "a second", "mean", "p50", "p95", "p99", "p99.9", "max"];
        parts.push(table::rows(&header, &rows, width));
        let rows: Vec<Vec<String>> = self.processes.iter().map(|process| self.process_row(process)).collect();
        let unit = if self.run.loaded > 0 { "µs a document" } else { "µs an operation" };
        if !rows.is_empty() {
            parts.push(table::rows(&["process", "pid", "CPU s", unit, "cores", "peak memory"], &rows, width));
        }
        if let Some(fsyncs) = self.fsyncs {
            let carried = self.writes_per_fsync().map_or(String::new(), |n| format!(", {n:.1} writes each"));
            let mean = fsyncs.mean_us().map_or(String::new(), |us| format!(" of {}", latency(us as u64)));
            parts.push(format!("{} fsyncs of the Raft log{mean}{carried}", output::grouped(fsyncs.count)));
        }
        if self.run.missing > 0 {
            parts.push(format!("{} documents were not found", output::grouped(self.run.missing)));
        }
        if self.run.errors > 0 {
            parts.push(format!("{} errors, among them:", output::grouped(self.run.errors)));
            parts.extend(self.run.messages.iter().map(|message| format!("  {message}")));
        }
        parts.join("\n")
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let operations: Vec<Value> = self
            .run
            .latencies
            .iter()
            .map(|(operation, histogram)| self.latency_json(*operation, histogram))
            .collect();
        let processes: Vec<Value> = self
            .processes
            .iter()
            .map(|report| {
                json!({
                    "name": report.process.name,
                    "pid": report.process.pid,
                    "cpu_seconds": report.cpu_seconds,
                    "cpu_us_per_operation": self.cpu_us(report),
                    "peak_bytes": report.peak_bytes,
                })
            })
            .collect();
        json!({
            "workload": self.workload(),
            "documents": self.options.documents,
            "value_bytes": self.options.value_bytes,
            "clients": self.options.clients,
            "seconds": self.run.elapsed.as_secs_f64(),
            "operations_per_second": self.rate(self.run.operations()),
            "documents_loaded_per_second": (self.run.loaded > 0).then(|| self.rate(self.run.loaded)),
            "documents_scanned_per_second": self.scanned().map(|scanned| self.rate(scanned)),
            "errors": self.run.errors,
            "error_messages": self.run.messages,
            "not_found": self.run.missing,
            "operations": operations,
            "processes": processes,
            "fsyncs": self.fsyncs.map(|fsyncs| fsyncs.count),
            "fsync_mean_us": self.fsyncs.and_then(FsyncReport::mean_us),
            "writes_per_fsync": self.writes_per_fsync(),
        })
        .to_string()
    }

    fn headline(&self) -> String {
        let total = match (self.run.loaded, self.scanned()) {
            (0, None) => format!("{} operations/s", output::grouped(self.rate(self.run.operations()) as u64)),
            (0, Some(scanned)) => {
                format!("{} documents/s scanned", output::grouped(self.rate(scanned) as u64))
            }
            (loaded, _) => format!("{} documents/s", output::grouped(self.rate(loaded) as u64)),
        };
        format!(
            "workload {}: {total}, {} clients, {} documents of {} bytes, {:.1} s",
            self.workload(),
            self.options.clients,
            output::grouped(self.options.documents),
            self.options.value_bytes,
            self.run.elapsed.as_secs_f64(),
        )
    }

    fn workload(&self) -> String {
        use clap::ValueEnum;
        let value = self.options.workload.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Documents that filter scans have looked at.
    fn scanned(&self) -> Option<u64> {
        (self.options.workload == Workload::Scan).then(|| self.run.operations() * self.options.documents)
    }

    fn rate(&self, count: u64) -> f64 {
        count as f64 / self.run.elapsed.as_secs_f64().max(0.001)
    }

    fn cpu_us(&self, report: &ProcessReport) -> Option<f64> {
        let units = self.run.units();
        (units > 0).then(|| report.cpu_seconds * 1e6 / units as f64)
    }

    fn writes_per_fsync(&self) -> Option<f64> {
        let writes: u64 = match self.run.loaded {
            0 => self.run.latencies.iter().filter(|(o, _)| o.is_write()).map(|(_, h)| h.len()).sum(),
            loaded => loaded,
        };
        let fsyncs = self.fsyncs.filter(|fsyncs| fsyncs.count > 0 && writes > 0)?;
        Some(writes as f64 / fsyncs.count as f64)
    }

    fn latency_row(&self, operation: Operation, histogram: &Histogram<u64>) -> Vec<String> {
        let mut row = vec![
            operation.name().to_owned(),
            output::grouped(histogram.len()),
            output::grouped(self.rate(histogram.len()) as u64),
            latency(histogram.mean() as u64),
        ];
        row.extend([0.5, 0.95, 0.99, 0.999].map(|quantile| latency(histogram.value_at_quantile(quantile))));
        row.push(latency(histogram.max()));
        row
    }

    fn latency_json(&self, operation: Operation, histogram: &Histogram<u64>) -> Value {
        json!({
            "name": operation.name(),
            "count": histogram.len(),
            "per_second": self.rate(histogram.len()),
            "mean_us": histogram.mean(),
            "p50_us": histogram.value_at_quantile(0.5),
            "p95_us": histogram.value_at_quantile(0.95),
            "p99_us": histogram.value_at_quantile(0.99),
            "p999_us": histogram.value_at_quantile(0.999),
            "max_us": histogram.max(),
        })
    }

    fn process_row(&self, report: &ProcessReport) -> Vec<String> {
        vec![
            report.process.name.clone(),
            report.process.pid.to_string(),
            format!("{:.2}", report.cpu_seconds),
            self.cpu_us(report).map_or_else(String::new, |us| format!("{us:.1}")),
            format!("{:.2}", report.cpu_seconds / self.run.elapsed.as_secs_f64().max(0.001)),
            format!("{} MiB", report.peak_bytes / 1024 / 1024),
        ]
    }
}

/// Microseconds below a millisecond, else milliseconds.
pub(crate) fn latency(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..10_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.1} ms", micros as f64 / 1e3),
    }
}
