//! What a node is told at its start, and what follows from it.
//!
//! [`Options`] are what the command line gives; a configuration file fills what it leaves open; [`Options::resolve`]
//! adds the defaults and refuses what makes no sense, each with a sentence that names the option.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use base::limits::DISK_RESERVE_BYTES_DEFAULT;

use crate::config::{ConfigFile, node_called};
use crate::{Failure, LogFormat, facts};

/// The port that clients expect.
const PORT_DEFAULT: u16 = 27_017;
/// The port of the admin address where it names none.
const ADMIN_PORT_DEFAULT: u16 = 27_217;
/// How far the default port for other nodes is from the one for clients.
const PEER_PORT_OFFSET: u16 = 100;
/// Replicas of a shard.
pub(crate) const REPLICATION_FACTOR_DEFAULT: u32 = 3;
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
    /// Where other nodes reach this one: `address:port`. Default: the address of `listen`, with its port and 100.
    pub peer_listen: Option<String>,
    /// Where metrics and health are served over HTTP: `address:port`. Default: nowhere.
    pub admin: Option<String>,
    /// Peer addresses of nodes of the cluster to join.
    pub join: Vec<String>,
    /// The node's name. Default: its address.
    pub name: Option<String>,
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
    /// Free bytes of disk below which this node hands over what it leads, and refuses the writes that stay.
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
    /// The address to bind for clients.
    pub listen: SocketAddr,
    /// The address to bind for other nodes.
    pub peer_listen: SocketAddr,
    /// The address to bind for metrics and health; `None` to serve none.
    pub admin: Option<SocketAddr>,
    /// Peer addresses of nodes of the cluster to join; empty to found one, or to do what the configuration says.
    pub join: Vec<String>,
    /// Peer addresses of the other nodes of the configuration.
    pub others: Vec<String>,
    /// Whether this node founds the cluster where none is running.
    pub founds: bool,
    /// The node's name.
    pub name: String,
    /// Whether the operator gave the name.
    pub is_named: bool,
    /// The cluster's name, where one is given.
    pub cluster_name: Option<String>,
    /// How many replicas a shard has where there are as many nodes.
    pub replication_factor: u32,
    /// Whether the node holds data.
    pub storage: bool,
    /// Where the node stands.
    pub labels: BTreeMap<String, String>,
    /// Memory for the store's cache.
    pub cache_bytes: u64,
    /// Whether `configureFailPoint` exists.
    pub test_commands: bool,
    /// Extra time of every fsync of the Raft log.
    pub fsync_delay_us: u64,
    /// Free bytes of disk below which this node hands over what it leads, and refuses the writes that stay.
    pub disk_reserve_bytes: u64,
    /// Where to write the port once connections are taken.
    pub port_file: Option<PathBuf>,
    /// How logs look; `None` for what suits the terminal.
    pub log_format: Option<LogFormat>,
}

impl Options {
    /// Reads the configuration file, if one is given, and adds the defaults.
    pub fn resolve(&self) -> Result<Settings, Failure> {
        if let (None, Some(name)) = (&self.config, &self.node) {
            return Err(Failure::Options(format!(
                "--node {name} needs --config: it names a node of the file"
            )));
        }
        let (file, nodes) = match &self.config {
            Some(path) => ConfigFile::read(path)?,
            None => Default::default(),
        };
        let position = match nodes.is_empty() {
            true if self.node.is_none() => None,
            _ => Some(node_called(&nodes, self.node.as_deref())?),
        };
        let node = position.and_then(|position| nodes.get(position));
        let data = self.data.clone().or_else(|| node?.data.clone()).ok_or_else(|| {
            Failure::Options(
                "no data directory: give --data DIR, or `data` in the configuration file".to_owned(),
            )
        })?;
        let listen = match (&self.listen, node) {
            (Some(given), _) => address(given)?,
            (None, Some(node)) => node.listen,
            (None, None) => address("127.0.0.1")?,
        };
        let peer_listen = match (&self.peer_listen, node) {
            (Some(given), _) => address(given)?,
            (None, Some(node)) if self.listen.is_none() => node.peer,
            _ => SocketAddr::new(listen.ip(), peer_port(listen.port())),
        };
        let insecure = self.insecure || file.insecure.unwrap_or(false);
        let admin = match &self.admin {
            Some(given) => Some(admin_address(given)?),
            None => node.and_then(|node| node.admin),
        };
        for reachable in [Some(listen), Some(peer_listen), admin].into_iter().flatten() {
            check_loopback(reachable, insecure)?;
        }
        let others = nodes.iter().enumerate().filter(|(other, _)| Some(*other) != position);
        let name = self.name.clone().or_else(|| Some(node?.name.clone()));
        Ok(Settings {
            data,
            listen,
            peer_listen,
            admin,
            join: self.join.clone(),
            others: others.map(|(_, other)| other.peer.to_string()).collect(),
            founds: position.is_none_or(|position| position == 0),
            is_named: name.is_some(),
            name: name.unwrap_or_default(),
            cluster_name: file.cluster.name.clone(),
            replication_factor: file.replication_factor(),
            storage: node.is_none_or(|node| node.storage),
            labels: node.map(|node| node.labels.clone()).unwrap_or_default(),
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

impl Settings {
    /// The node's name, which is its address where none was given.
    pub(crate) fn name_at(&self, address: &str) -> String {
        if self.is_named { self.name.clone() } else { address.to_owned() }
    }
}

/// The port for other nodes where none is given; a free one beside a free one.
pub(crate) fn peer_port(client_port: u16) -> u16 {
    if client_port == 0 { 0 } else { client_port.checked_add(PEER_PORT_OFFSET).unwrap_or(0) }
}

/// Reads `address:port` or `address`; the address may be a name.
pub(crate) fn address(text: &str) -> Result<SocketAddr, Failure> {
    address_or_port(text, PORT_DEFAULT)
}

/// As [`address`], for an admin address.
pub(crate) fn admin_address(text: &str) -> Result<SocketAddr, Failure> {
    address_or_port(text, ADMIN_PORT_DEFAULT)
}

fn address_or_port(text: &str, port: u16) -> Result<SocketAddr, Failure> {
    let wrong = |reason: String| Failure::Options(format!("cannot listen on '{text}': {reason}"));
    if let Ok(ip) = text.parse() {
        return Ok(SocketAddr::new(ip, port));
    }
    let with_port = if text.contains(':') { text.to_owned() } else { format!("{text}:{port}") };
    let mut found = with_port.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name has no address".to_owned()))
}

fn check_loopback(listen: SocketAddr, insecure: bool) -> Result<(), Failure> {
    if listen.ip().is_loopback() || insecure {
        return Ok(());
    }
    Err(Failure::Options(format!(
        "refusing to listen on {listen}: it is reachable from other machines, and this version has neither users nor \
         TLS, so that anybody there could use it. Listen on 127.0.0.1, or say --insecure if the \
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
    fn an_admin_address_is_optional_and_follows_the_same_rule() {
        let with = |admin: &str, insecure| {
            let options = Options {
                data: Some("/tmp/x".into()),
                admin: Some(admin.to_owned()),
                insecure,
                ..Options::default()
            };
            options.resolve()
        };
        assert_eq!(on("127.0.0.1", false).expect("valid").admin, None);
        let admin = with("127.0.0.1", false).expect("valid").admin.expect("given");
        assert_eq!(admin.to_string(), "127.0.0.1:27217");
        let refusal = with("0.0.0.0:9000", false).expect_err("refused").to_string();
        assert!(refusal.contains("0.0.0.0:9000") && refusal.contains("--insecure"), "{refusal}");
        assert!(with("0.0.0.0:9000", true).is_ok());
    }

    #[test]
    fn a_node_needs_a_data_directory() {
        let refusal = Options::default().resolve().expect_err("refused").to_string();
        assert!(refusal.contains("--data"), "{refusal}");
    }
}
