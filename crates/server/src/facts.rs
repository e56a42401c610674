//! Facts about the process and its machine, for `serverStatus`, `hostInfo`, the metrics page and the defaults.
//!
//! Read from /proc when asked; what cannot be read is zero or empty, never an error.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use replica::Host;
use storage::DataDirectory;
use storage::group_commit::GroupCommitStatistics;
use wire::{Facts, Machine};

use crate::logging::RecentLog;
use crate::options::Settings;

/// The running node's facts.
pub(crate) struct ProcessFacts {
    pub(crate) settings: Settings,
    pub(crate) host: Host,
    pub(crate) log_statistics: Box<dyn Fn() -> GroupCommitStatistics + Send + Sync>,
    pub(crate) recent: Arc<RecentLog>,
}

impl Facts for ProcessFacts {
    fn host_name(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    fn memory(&self) -> (u64, u64) {
        (status_bytes("VmRSS:"), status_bytes("VmSize:"))
    }

    fn machine(&self) -> Machine {
        let uname = rustix::system::uname();
        Machine {
            memory_bytes: machine_memory_bytes(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            os_name: uname.sysname().to_string_lossy().into_owned(),
            os_version: uname.release().to_string_lossy().into_owned(),
        }
    }

    fn arguments(&self) -> Vec<String> {
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    fn parsed_options(&self) -> Document {
        let settings = &self.settings;
        doc! {
            "net": { "bindIp": settings.listen.ip().to_string(), "port": i32::from(settings.listen.port()) },
            "storage": {
                "dbPath": settings.data.display().to_string(),
                "cacheBytes": long(settings.cache_bytes),
                "diskReserveBytes": long(settings.disk_reserve_bytes),
            },
            "setParameter": { "enableTestCommands": settings.test_commands },
        }
    }

    fn recent_log(&self) -> Vec<String> {
        self.recent.lines()
    }

    fn status(&self) -> Document {
        let log = (self.log_statistics)();
        let replicas = self.host.replicas();
        let leaders = replicas.iter().filter(|replica| replica.is_leader).count();
        doc! {
            "version": env!("CARGO_PKG_VERSION"),
            "node": &self.settings.name,
            "replicas": { "total": long(replicas.len() as u64), "leaders": long(leaders as u64) },
            "raftLog": {
                "fsyncs": long(log.fsyncs),
                "batches": long(log.batches),
                "entries": long(log.entries),
                "bytes": long(log.bytes),
                "fsyncMicros": long(log.durations.sum_ns / 1_000),
                "batchesPerFsync": log.batches_per_fsync.iter().map(|count| long(*count)).collect::<Vec<_>>(),
            },
            "replication": self.replication(),
        }
    }
}

impl ProcessFacts {
    fn replication(&self) -> Document {
        use std::sync::atomic::Ordering::Relaxed;
        let metrics = self.host.metrics();
        doc! {
            "entriesProposed": long(metrics.entries_proposed.load(Relaxed)),
            "commandsEvaluated": long(metrics.commands_evaluated.load(Relaxed)),
            "commandsProposed": long(metrics.commands_proposed.load(Relaxed)),
            "bytesProposed": long(metrics.bytes_proposed.load(Relaxed)),
            "entriesApplied": long(metrics.entries_applied.load(Relaxed)),
            "batchesApplied": long(metrics.batches_applied.load(Relaxed)),
            "readsDelayed": long(metrics.reads_delayed.load(Relaxed)),
            "throttled": long(metrics.throttled.load(Relaxed)),
            "flushes": long(metrics.flushes.load(Relaxed)),
            "compactions": long(metrics.compactions.load(Relaxed)),
        }
    }
}

/// What the metrics page says of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProcessNumbers {
    /// Processor time used, in seconds.
    pub(crate) cpu_seconds: f64,
    /// When it was started, in seconds since the epoch.
    pub(crate) start_time_seconds: f64,
    /// Memory in RAM.
    pub(crate) resident_bytes: u64,
    /// Address space.
    pub(crate) virtual_bytes: u64,
    /// Open file descriptors, and how many there may be.
    pub(crate) open_files: u64,
    pub(crate) open_files_max: u64,
}

/// Reads what the metrics page says of the process.
pub(crate) fn process_numbers() -> ProcessNumbers {
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let (used, started) = times(&read("/proc/self/stat")).unwrap_or_default();
    let open_files = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
    let open_files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    ProcessNumbers {
        cpu_seconds: used as f64 / ticks_per_second,
        start_time_seconds: boot_time_seconds(&read("/proc/stat")) as f64 + started as f64 / ticks_per_second,
        resident_bytes: status_bytes("VmRSS:"),
        virtual_bytes: status_bytes("VmSize:"),
        open_files,
        open_files_max: open_files_max.unwrap_or(u64::MAX),
    }
}

/// From `/proc/self/stat`: the processor time used, by itself and in the kernel, and when the process was started after
/// the machine was; in clock ticks.
fn times(stat: &str) -> Option<(u64, u64)> {
    // The name in parentheses may hold anything, and the third field comes after it.
    let (_, after_name) = stat.rsplit_once(')')?;
    let field =
        |number: usize| after_name.split_whitespace().nth(number.checked_sub(3)?)?.parse::<u64>().ok();
    Some((field(14)?.saturating_add(field(15)?), field(22)?))
}

/// From `/proc/stat`: when the machine was started, in seconds since the epoch.
fn boot_time_seconds(stat: &str) -> u64 {
    let found = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    found.unwrap_or(0)
}

/// What the cluster's status says of a process: version, uptime, memory and free disk, and its admin address.
pub(crate) fn process_status(
    uptime: Duration,
    directory: &DataDirectory,
    admin: Option<SocketAddr>,
) -> Document {
    let free = directory.free_bytes().ok().map(long);
    let mut status = doc! {
        "version": env!("CARGO_PKG_VERSION"),
        "pid": i64::from(std::process::id()),
        "uptimeSeconds": long(uptime.as_secs()),
        "residentBytes": long(status_bytes("VmRSS:")),
        "diskFreeBytes": free,
    };
    if let Some(admin) = admin {
        status.insert("admin", admin.to_string());
    }
    status
}

/// Memory that this process may use: the machine's, or the container's limit.
pub(crate) fn machine_memory_bytes() -> u64 {
    let machine = kib_line(&read("/proc/meminfo"), "MemTotal:").unwrap_or(1 << 30);
    let limit = read("/sys/fs/cgroup/memory.max").trim().parse::<u64>().unwrap_or(u64::MAX);
    machine.min(limit)
}

fn status_bytes(name: &str) -> u64 {
    kib_line(&read("/proc/self/status"), name).unwrap_or(0)
}

/// The value of a line like `MemTotal:  1024 kB`, in bytes.
fn kib_line(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn long(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_kilobytes_is_read_as_bytes() {
        assert_eq!(kib_line("A: 1 kB\nVmRSS:\t  20 kB\n", "VmRSS:"), Some(20 * 1024));
        assert_eq!(kib_line("A: 1 kB\n", "VmRSS:"), None);
    }
    #[test]
    fn times_are_found_after_a_name_with_anything_in_it() {
        let numbers: Vec<String> = (4..=52).map(|field| (field * 100).to_string()).collect();
        let stat = format!("1 (a) b (c) S {}", numbers.join(" "));
        assert_eq!(times(&stat), Some((1_400 + 1_500, 2_200)));
        assert_eq!(times("1 (a) S 1 2"), None);
        assert_eq!(boot_time_seconds("cpu 1 2\nbtime 1700000000\n"), 1_700_000_000);
    }

    #[test]
    fn this_process_has_used_memory_and_has_a_start() {
        let numbers = process_numbers();
        assert!(numbers.resident_bytes > 0 && numbers.virtual_bytes >= numbers.resident_bytes, "{numbers:?}");
        assert!(numbers.start_time_seconds > 1.5e9, "{numbers:?}");
        assert!(numbers.open_files > 0 && numbers.open_files_max >= numbers.open_files, "{numbers:?}");
    }
}
