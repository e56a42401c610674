//! The configuration file: TOML, the same on every node of a cluster.
//!
//! ```toml
//! [cluster]
//! name = "shop"
//!
//! [[nodes]]
//! name = "n1"
//! listen = "127.0.0.1:27017"
//! peer = "127.0.0.1:27117"
//! admin = "127.0.0.1:27217"
//! data = "data/n1"
//! ```
//!
//! Called by [`crate::Options::resolve`] and by `psdb config check`. Always holds: a file that is read without a mistake names
//! every node and every address once; a mistake is a sentence with the line that it is on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::options::{REPLICATION_FACTOR_DEFAULT, address, admin_address, peer_port};
use crate::peers::{ROUTER_ROLE, STORAGE_ROLE};
use crate::{Failure, LogFormat};

/// Replicas of a shard, at most.
const REPLICATION_FACTOR_MAX: u32 = 7;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(crate) cache_bytes: Option<u64>,
    pub(crate) disk_reserve_bytes: Option<u64>,
    pub(crate) log_format: Option<LogFormat>,
    /// Allows addresses off loopback.
    pub(crate) insecure: Option<bool>,
    #[serde(default)]
    pub(crate) cluster: ClusterSection,
    #[serde(default)]
    nodes: Vec<NodeSection>,
}

/// `[cluster]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterSection {
    pub(crate) name: Option<String>,
    replication_factor: Option<Spanned<u32>>,
}

/// One of `[[nodes]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeSection {
    name: Spanned<String>,
    listen: Option<Spanned<String>>,
    peer: Option<Spanned<String>>,
    admin: Option<Spanned<String>>,
    data: Option<Spanned<PathBuf>>,
    roles: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// A node of the file, with defaults in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfiguredNode {
    pub(crate) name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) storage: bool,
    pub(crate) labels: BTreeMap<String, String>,
}

/// What is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mistake {
    line: usize,
    sentence: String,
}

/// Checks a configuration file without starting anything. The failure has a line for every mistake.
pub fn check_config(path: &Path) -> Result<String, Failure> {
    let (file, nodes) = ConfigFile::read(path)?;
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let factor = file.replication_factor();
    Ok(format!(
        "{}: {} nodes ({}), replication factor {factor}",
        path.display(),
        nodes.len(),
        names.join(", ")
    ))
}

impl ConfigFile {
    /// Reads and checks a file. The failure says which lines are wrong.
    pub(crate) fn read(path: &Path) -> Result<(ConfigFile, Vec<ConfiguredNode>), Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::Options(format!("the configuration file {} cannot be read: {error}", path.display()))
        })?;
        parse(&text).map_err(|mistakes| {
            let lines = mistakes
                .iter()
                .map(|mistake| format!("{}:{}: {}", path.display(), mistake.line, mistake.sentence));
            Failure::Options(lines.collect::<Vec<_>>().join("\n"))
        })
    }

    pub(crate) fn replication_factor(&self) -> u32 {
        self.cluster
            .replication_factor
            .as_ref()
            .map_or(REPLICATION_FACTOR_DEFAULT, |factor| *factor.get_ref())
    }
}

/// The node called `name`; the only one when no name is given.
pub(crate) fn node_called(nodes: &[ConfiguredNode], name: Option<&str>) -> Result<usize, Failure> {
    let known = || nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
    match name {
        Some(name) => nodes.iter().position(|node| node.name == name).ok_or_else(|| {
            Failure::Options(format!(
                "the configuration file has no node called '{name}'; it has: {}",
                known()
            ))
        }),
        None if nodes.len() == 1 => Ok(0),
        None => Err(Failure::Options(format!(
            "the configuration file has {} nodes; say which one this is with --node: {}",
            nodes.len(),
            known()
        ))),
    }
}

fn parse(text: &str) -> Result<(ConfigFile, Vec<ConfiguredNode>), Vec<Mistake>> {
    let file: ConfigFile = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        vec![Mistake { line, sentence: error.message().replace('`', "'") }]
    })?;
    let mut check = Check { text, mistakes: Vec::new(), seen: BTreeMap::new() };
    let nodes: Vec<ConfiguredNode> = file.nodes.iter().filter_map(|node| check.node(node)).collect();
    check.replication_factor(&file);
    check.loopback(&file, &nodes);
    match check.mistakes.is_empty() {
        true => Ok((file, nodes)),
        false => Err(check.mistakes),
    }
}

/// Collects mistakes.
struct Check<'a> {
    text: &'a str,
    mistakes: Vec<Mistake>,
    /// Names, addresses and directories that were seen, with their lines.
    seen: BTreeMap<String, usize>,
}

impl Check<'_> {
    fn wrong<T>(&mut self, at: &Spanned<T>, sentence: String) {
        let line = line_of(self.text, at.span().start);
        self.mistakes.push(Mistake { line, sentence });
    }

    fn once<T>(&mut self, what: &str, at: &Spanned<T>, value: String) {
        let line = line_of(self.text, at.span().start);
        if let Some(first) = self.seen.insert(format!("{what} {value}"), line) {
            self.wrong(at, format!("the {what} '{value}' is used on line {first} already"));
        }
    }

    fn node(&mut self, node: &NodeSection) -> Option<ConfiguredNode> {
        let name = node.name.get_ref().clone();
        if name.is_empty() {
            self.wrong(&node.name, "a node needs a name".to_owned());
        }
        self.once("node name", &node.name, name.clone());
        let before = self.mistakes.len();
        let listen = self.address(&node.name, node.listen.as_ref(), || address("127.0.0.1"));
        // What follows from an address that is wrong already is not a second mistake.
        if self.mistakes.len() > before && node.peer.is_none() {
            return None;
        }
        let listen = listen?;
        let peer = self.address(&node.name, node.peer.as_ref(), || {
            Ok(SocketAddr::new(listen.ip(), peer_port(listen.port())))
        })?;
        let admin = node.admin.as_ref().and_then(|given| self.admin_address(given));
        if let Some(data) = &node.data {
            self.once("data directory", data, data.get_ref().display().to_string());
        }
        let mut storage = node.roles.is_none();
        for role in node.roles.iter().flatten() {
            match role.get_ref().as_str() {
                STORAGE_ROLE => storage = true,
                ROUTER_ROLE => {}
                other => self.wrong(
                    role,
                    format!(
                        "'{other}' is no role of a node; the roles are '{STORAGE_ROLE}' and '{ROUTER_ROLE}'"
                    ),
                ),
            }
        }
        let data = node.data.as_ref().map(|data| data.get_ref().clone());
        Some(ConfiguredNode { name, listen, peer, admin, data, storage, labels: node.labels.clone() })
    }

    fn address<T>(
        &mut self,
        node: &Spanned<T>,
        given: Option<&Spanned<String>>,
        default: impl FnOnce() -> Result<SocketAddr, Failure>,
    ) -> Option<SocketAddr> {
        let found = match given {
            Some(text) => address(text.get_ref()),
            None => default(),
        };
        match (found, given) {
            (Ok(found), Some(at)) => {
                self.once("address", at, found.to_string());
                Some(found)
            }
            (Ok(found), None) => {
                self.once("address", node, found.to_string());
                Some(found)
            }
            (Err(failure), Some(at)) => {
                self.wrong(at, failure.to_string());
                None
            }
            (Err(failure), None) => {
                self.wrong(node, failure.to_string());
                None
            }
        }
    }

    fn admin_address(&mut self, given: &Spanned<String>) -> Option<SocketAddr> {
        match admin_address(given.get_ref()) {
            Ok(found) => {
                self.once("address", given, found.to_string());
                Some(found)
            }
            Err(failure) => {
                self.wrong(given, failure.to_string());
                None
            }
        }
    }

    fn replication_factor(&mut self, file: &ConfigFile) {
        let Some(factor) = &file.cluster.replication_factor else { return };
        let holds_data = |node: &&NodeSection| {
            let named = |role: &Spanned<String>| role.get_ref() == STORAGE_ROLE;
            node.roles.as_ref().is_none_or(|roles| roles.iter().any(named))
        };
        let (value, storage) = (*factor.get_ref(), file.nodes.iter().filter(holds_data).count());
        if value == 0 || value > REPLICATION_FACTOR_MAX {
            self.wrong(
                factor,
                format!("a replication factor is from 1 to {REPLICATION_FACTOR_MAX}, not {value}"),
            );
        } else if !file.nodes.is_empty() && u32::try_from(storage).is_ok_and(|storage| storage < value) {
            self.wrong(
                factor,
                format!("the replication factor is {value}, and only {storage} nodes have the role '{STORAGE_ROLE}'"),
            );
        }
    }

    fn loopback(&mut self, file: &ConfigFile, nodes: &[ConfiguredNode]) {
        if file.insecure == Some(true) {
            return;
        }
        for (node, section) in nodes.iter().zip(&file.nodes) {
            let admin = node.admin.map(|address| (address, &section.admin));
            let addresses = [(node.listen, &section.listen), (node.peer, &section.peer)];
            for (address, at) in addresses.into_iter().chain(admin) {
                if !address.ip().is_loopback() {
                    let at = at.as_ref().unwrap_or(&section.name);
                    self.wrong(
                        at,
                        format!(
                            "{address} can be reached from other machines, and this version has neither users nor TLS: \
                             say 'insecure = true' at the top of the file if the network is trusted"
                        ),
                    );
                }
            }
        }
    }
}

/// The line, counted from one, of a byte of the text.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = r#"[cluster]
name = "shop"
replication_factor = 3

[[nodes]]
name = "n1"
listen = "127.0.0.1:27017"
data = "data/n1"
admin = "127.0.0.1:27217"
labels = { zone = "a" }

[[nodes]]
name = "n2"
listen = "127.0.0.1:27018"
peer = "127.0.0.1:30000"

[[nodes]]
name = "n3"
listen = "127.0.0.1:27019"
roles = ["storage", "router"]
"#;

    fn mistakes(text: &str) -> Vec<(usize, String)> {
        let mistakes = parse(text).expect_err("a mistake");
        mistakes.into_iter().map(|mistake| (mistake.line, mistake.sentence)).collect()
    }

    fn mistake_in(from: &str, to: &str) -> (usize, String) {
        let mut all = mistakes(&THREE.replacen(from, to, 1));
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn a_file_names_its_nodes_and_fills_in_what_it_leaves_out() {
        let (file, nodes) = parse(THREE).expect("valid");
        assert_eq!((file.cluster.name.as_deref(), file.replication_factor()), (Some("shop"), 3));
        assert_eq!(nodes[0].peer.to_string(), "127.0.0.1:27117");
        assert_eq!(nodes[1].peer.to_string(), "127.0.0.1:30000");
        assert_eq!(nodes[0].admin.map(|admin| admin.port()), Some(27_217));
        assert_eq!(nodes[1].admin, None);
        assert!(nodes[2].storage && nodes[0].labels.contains_key("zone"));
        assert_eq!(node_called(&nodes, Some("n3")), Ok(2));
        assert!(node_called(&nodes, Some("n4")).expect_err("unknown").to_string().contains("n1, n2, n3"));
        assert!(node_called(&nodes, None).expect_err("several").to_string().contains("--node"));
    }

    #[test]
    fn every_mistake_is_a_sentence_with_its_line() {
        let (line, sentence) = mistake_in("data = \"data/n1\"", "dota = \"data/n1\"");
        assert!(line == 8 && sentence.contains("unknown field 'dota'"), "{line} {sentence}");
        let (line, sentence) = mistake_in("\"n2\"", "\"n1\"");
        assert!(line == 13 && sentence.contains("node name 'n1' is used on line 6"), "{line} {sentence}");
        let (line, sentence) = mistake_in("127.0.0.1:30000", "127.0.0.1:27017");
        assert!(line == 15 && sentence.contains("is used on line 7"), "{line} {sentence}");
        let (line, sentence) = mistake_in("replication_factor = 3", "replication_factor = 5");
        assert!(line == 3 && sentence.contains("only 3 nodes"), "{line} {sentence}");
        let (line, sentence) = mistake_in("[\"storage\", \"router\"]", "[\"storage\", \"arbiter\"]");
        assert!(line == 20 && sentence.contains("'arbiter' is no role"), "{line} {sentence}");
        let (line, sentence) = mistake_in("127.0.0.1:27018", "10.0.0.1:27018");
        assert!(line == 14 && sentence.contains("insecure = true"), "{line} {sentence}");
        let (line, sentence) = mistake_in("127.0.0.1:27217", "10.0.0.1:27217");
        assert!(line == 9 && sentence.contains("insecure = true"), "{line} {sentence}");
        let (line, sentence) = mistake_in("127.0.0.1:27217", "127.0.0.1:27117");
        assert!(line == 9 && sentence.contains("is used on line 6"), "{line} {sentence}");
        let (line, sentence) = mistake_in("127.0.0.1:27019", "nonsense:port");
        assert!(line == 19 && sentence.contains("nonsense:port"), "{line} {sentence}");
    }

    #[test]
    fn several_mistakes_are_all_found() {
        let text = THREE.replace("\"n2\"", "\"n1\"").replace("127.0.0.1:27019", "127.0.0.1:27017");
        assert_eq!(mistakes(&text).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [13, 19]);
    }
}
