//! What a node is told at its start, and what follows from it.
//!
//! [`Options`] are what the command line gives; a configuration file fills what it leaves open; [`Options::resolve`]
//! adds the defaults and refuses what makes no sense, each with a sentence that names the option.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use base::limits::DISK_RESERVE_BYTES_DEFAULT;

use crate::config::ConfigFile;
use crate::{Failure, LogFormat, facts};

/// The port that clients expect.
const PORT_DEFAULT: u16 = 27_017;
/// The cache takes a quarter of the machine's memory, within these bounds.
const CACHE_BYTES_MIN: u64 = 64 << 20;
const CACHE_BYTES_MAX: u64 = 4 << 30;

/// What the command line gives. `None` leaves the choice to the configuration file, then to the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The data directory; required here or in the file.
    pub data: Option<PathBuf>,
    /// `address:port`; port 0 for any free one. Default 127.0.0.1:27017.
    pub listen: Option<String>,
    /// Memory for the store's cache. Default a quarter of the machine's, at most 4 GiB.
    pub cache_bytes: Option<u64>,
    /// Allows an address off loopback: without users and TLS, whoever reaches it may do everything.
    pub insecure: bool,
    /// Makes `configureFailPoint` exist.
    pub test_commands: bool,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// Which node of the file this is.
    pub node: Option<String>,
    /// Makes every fsync of the Raft log take this much longer, for benchmarks.
    pub fsync_delay_us: Option<u64>,
    /// Free bytes of disk below which writes are refused.
    pub disk_reserve_bytes: Option<u64>,
    /// Where to write the port once connections are taken.
    pub port_file: Option<PathBuf>,
    /// How logs look.
    pub log_format: Option<LogFormat>,
}

/// What a node starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The data directory.
    pub data: PathBuf,
    /// The address to bind.
    pub listen: SocketAddr,
    /// The node's name.
    pub name: String,
    /// Memory for the store's cache.
    pub cache_bytes: u64,
    /// Whether `configureFailPoint` exists.
    pub test_commands: bool,
    /// Extra time of every fsync of the Raft log.
    pub fsync_delay_us: u64,
    /// Free bytes of disk below which writes are refused.
    pub disk_reserve_bytes: u64,
    /// Where to write the port once connections are taken.
    pub port_file: Option<PathBuf>,
    /// How logs look; `None` for what suits the terminal.
    pub log_format: Option<LogFormat>,
}

impl Options {
    /// Reads the configuration file, if one is given, and adds the defaults.
    pub fn resolve(&self) -> Result<Settings, Failure> {
        let name = self.node.clone().unwrap_or_else(|| "node1".to_owned());
        let file = match &self.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let node = match (&self.config, &self.node) {
            (None, Some(name)) => {
                return Err(Failure::Options(format!(
                    "--node {name} needs --config: it names a node of the file"
                )));
            }
            (Some(_), _) => file.node(self.node.as_deref())?,
            (None, None) => Default::default(),
        };
        let data = self.data.clone().or(node.data).ok_or_else(|| {
            Failure::Options(
                "no data directory: give --data DIR, or `data` in the configuration file".to_owned(),
            )
        })?;
        let listen = self.listen.clone().or(node.listen);
        let listen = address(listen.as_deref().unwrap_or("127.0.0.1"))?;
        check_loopback(listen, self.insecure || file.insecure.unwrap_or(false))?;
        Ok(Settings {
            data,
            listen,
            name: node.name.unwrap_or(name),
            cache_bytes: self.cache_bytes.or(file.cache_bytes).unwrap_or_else(default_cache_bytes),
            test_commands: self.test_commands,
            fsync_delay_us: self.fsync_delay_us.unwrap_or(0),
            disk_reserve_bytes: self
                .disk_reserve_bytes
                .or(file.disk_reserve_bytes)
                .unwrap_or(DISK_RESERVE_BYTES_DEFAULT),
            port_file: self.port_file.clone(),
            log_format: self.log_format.or(file.log_format),
        })
    }
}

/// Reads `address:port` or `address`; the address may be a name.
fn address(text: &str) -> Result<SocketAddr, Failure> {
    let wrong = |reason: String| Failure::Options(format!("cannot listen on '{text}': {reason}"));
    if let Ok(ip) = text.parse() {
        return Ok(SocketAddr::new(ip, PORT_DEFAULT));
    }
    let with_port = if text.contains(':') { text.to_owned() } else { format!("{text}:{PORT_DEFAULT}") };
    let mut found = with_port.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name has no address".to_owned()))
}

fn check_loopback(listen: SocketAddr, insecure: bool) -> Result<(), Failure> {
    if listen.ip().is_loopback() || insecure {
        return Ok(());
    }
    Err(Failure::Options(format!(
        "refusing to listen on {listen}: it is reachable from other machines, and this version has neither users nor \
         TLS, so that anybody there could read and change all data. Listen on 127.0.0.1, or say --insecure if the \
         network is trusted"
    )))
}

fn default_cache_bytes() -> u64 {
    (facts::machine_memory_bytes() / 4).clamp(CACHE_BYTES_MIN, CACHE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(listen: &str, insecure: bool) -> Result<Settings, Failure> {
        let options = Options {
            data: Some("/tmp/x".into()),
            listen: Some(listen.to_owned()),
            insecure,
            ..Options::default()
        };
        options.resolve()
    }

    #[test]
    fn an_address_off_loopback_needs_the_word_insecure() {
        let refusal = on("0.0.0.0:27017", false).expect_err("refused").to_string();
        assert!(refusal.contains("--insecure"), "{refusal}");
        assert!(on("0.0.0.0:27017", true).is_ok());
        for loopback in ["127.0.0.1", "127.0.0.1:0", "[::1]:27018", "localhost:27019"] {
            assert!(on(loopback, false).is_ok(), "{loopback}");
        }
    }

    #[test]
    fn a_missing_port_is_the_usual_one() {
        assert_eq!(on("127.0.0.1", false).expect("valid").listen.port(), PORT_DEFAULT);
    }

    #[test]
    fn a_node_needs_a_data_directory() {
        let refusal = Options::default().resolve().expect_err("refused").to_string();
        assert!(refusal.contains("--data"), "{refusal}");
    }
}
