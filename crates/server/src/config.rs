//! The configuration file: TOML, shared by all nodes of a cluster.
//!
//! ```toml
//! cache_bytes = 1073741824
//! [nodes.alpha]
//! data = "/var/lib/psdb"
//! listen = "127.0.0.1:27017"
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Failure, LogFormat};

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigFile {
    pub(crate) cache_bytes: Option<u64>,
    pub(crate) disk_reserve_bytes: Option<u64>,
    pub(crate) insecure: Option<bool>,
    pub(crate) log_format: Option<LogFormat>,
    #[serde(default)]
    nodes: BTreeMap<String, NodeSection>,
}

/// One `[nodes.NAME]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSection {
    /// The section's own name.
    #[serde(skip)]
    pub(crate) name: Option<String>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) listen: Option<String>,
}

impl ConfigFile {
    /// Reads a file. The failure says which line is wrong.
    pub(crate) fn read(path: &Path) -> Result<ConfigFile, Failure> {
        let wrong = |reason: String| {
            Failure::Options(format!("configuration file {}: {}", path.display(), reason.trim_end()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        toml::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    /// The section of this node; the only one when no name is given.
    pub(crate) fn node(&self, name: Option<&str>) -> Result<NodeSection, Failure> {
        let known = || self.nodes.keys().cloned().collect::<Vec<_>>().join(", ");
        let (name, section) = match name {
            Some(name) => self.nodes.get_key_value(name).ok_or_else(|| {
                Failure::Options(format!("the configuration file has no [nodes.{name}]; it has: {}", known()))
            })?,
            None if self.nodes.is_empty() => return Ok(NodeSection::default()),
            None if self.nodes.len() > 1 => {
                return Err(Failure::Options(format!(
                    "the configuration file has several nodes; say which one this is with --node: {}",
                    known()
                )));
            }
            None => self.nodes.iter().next().expect("there is exactly one"),
        };
        Ok(NodeSection { name: Some(name.clone()), ..section.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ConfigFile, Failure> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("psdb.toml");
        std::fs::write(&path, text).expect("writes");
        ConfigFile::read(&path)
    }

    #[test]
    fn a_node_is_found_by_name_or_because_it_is_the_only_one() {
        let file = read("[nodes.a]\ndata = \"/a\"\n").expect("valid");
        assert_eq!(file.node(None).expect("the only one").data, Some("/a".into()));
        assert_eq!(file.node(Some("a")).expect("by name").name.as_deref(), Some("a"));
        assert!(file.node(Some("b")).expect_err("unknown").to_string().contains("it has: a"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let failure = read("cache_bytes = 1\ncash_bytes = 2\n").expect_err("unknown key").to_string();
        assert!(failure.contains("cash_bytes") && failure.contains("line 2"), "{failure}");
    }

    #[test]
    fn several_nodes_need_a_name() {
        let file = read("[nodes.a]\n[nodes.b]\n").expect("valid");
        assert!(file.node(None).expect_err("ambiguous").to_string().contains("--node"));
    }
}
