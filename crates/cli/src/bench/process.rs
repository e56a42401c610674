//! CPU time and memory of processes on this machine, read from `/proc`.
//!
//! Where there is no `/proc`, or a process belongs to someone else, there are simply no figures.

use std::fs;

/// Ticks a second of the CPU times in `/proc/PID/stat`: Linux fixes it at 100 for user space.
const TICKS_PER_SECOND: f64 = 100.0;
/// The state LISTEN in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// Its id.
    pub(super) pid: u32,
    /// The name of its program.
    pub(super) name: String,
}

impl Process {
    /// The process with this id.
    pub(super) fn of(pid: u32) -> Process {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Process { pid, name: name.trim().to_owned() }
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// User and system time of all its threads, in seconds.
    pub(super) cpu_seconds: f64,
    /// The most memory that it ever held, in bytes.
    pub(super) peak_bytes: u64,
}

/// What process `pid` has used so far.
pub(super) fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in parentheses and may hold anything: fields are counted behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak_kib: u64 = peak.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu_seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND, peak_bytes: peak_kib * 1024 })
}

/// The process that listens on `port`.
pub(super) fn listening(port: u16) -> Option<Process> {
    let inodes: Vec<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().flat_map(|table| listening_inodes(table, port)).collect();
    let targets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        let mut links = descriptors.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        if links.any(|link| targets.iter().any(|target| link.as_os_str() == target.as_str())) {
            return Some(Process::of(pid));
        }
    }
    None
}

/// The inodes of the sockets that listen on `port`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let text = fs::read_to_string(table).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            match fields.as_slice() {
                [_, local, _, LISTEN, _, _, _, _, _, inode, ..] if local.ends_with(&suffix) => {
                    Some((*inode).to_owned())
                }
                _ => None,
            }
        })
        .collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_leads_to_its_process() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("a bound socket").port();
        let process = listening(port).expect("this process listens");
        assert_eq!(process.pid, std::process::id());
        assert!(usage(process.pid).is_some_and(|usage| usage.peak_bytes > 0));
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_usage() {
        assert!(usage(u32::MAX).is_none());
    }
}
