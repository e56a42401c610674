//! A cluster of `psdb start` children on this machine: started together, reached by one connection string, stopped together.
//!
//! Used by the demo. Always holds: [`Cluster::start`] returns once every shard has the replicas that it should have.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};

use super::child::{ChildOptions, Server};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::output;

/// How long the nodes may take to become one cluster.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(50);

/// The running nodes, in the order of their names.
pub(super) struct Cluster {
    nodes: Vec<Option<Server>>,
    options: Vec<ChildOptions>,
    retired: usize,
}

impl Cluster {
    /// Starts `count` nodes with their data in subdirectories of `directory`: the first one founds, the others join it.
    pub(super) async fn start(directory: &Path, count: u8) -> Result<Cluster, Failure> {
        let mut cluster = Cluster { nodes: Vec::new(), options: Vec::new(), retired: 0 };
        for number in 1..=count {
            let name = format!("n{number}");
            let place = if count == 1 { directory.to_owned() } else { directory.join(&name) };
            cluster.start_node(place, name).await?;
        }
        if count > 1 {
            let waited = cluster.wait_until_replicated().await?;
            output::say(format!("The nodes are one cluster after {:.1} s", waited.as_secs_f64()))?;
        }
        Ok(cluster)
    }

    /// Starts one more node, which joins the others. Returns its position.
    pub(super) async fn add(&mut self) -> Result<usize, Failure> {
        let beside = self.options.first().and_then(|first| first.directory.parent());
        let beside = beside.ok_or_else(|| Failure::refused("the nodes have no directory in common"))?;
        let name = format!("n{}", self.options.len() + 1);
        self.start_node(beside.join(&name), name).await?;
        Ok(self.options.len() - 1)
    }

    async fn start_node(&mut self, directory: PathBuf, name: String) -> Result<(), Failure> {
        let mut options = ChildOptions::on_free_ports(directory, name)?;
        options.join = self.options.first().map(|first| first.peer_port);
        output::say(format!(
            "Starting {} on 127.0.0.1:{} with its data in {}",
            options.name,
            options.port,
            options.directory.display()
        ))?;
        self.nodes.push(Some(Server::start(options.clone()).await?));
        self.options.push(options);
        Ok(())
    }

    /// Stops a node that is not needed any more, in good order.
    pub(super) async fn retire(&mut self, node: usize) -> Result<(), Failure> {
        self.retired += 1;
        match self.nodes.get_mut(node).and_then(Option::take) {
            Some(server) => server.stop().await,
            None => Err(Failure::refused("the node is not running")),
        }
    }

    /// How many nodes there are that were not retired.
    pub(super) fn len(&self) -> usize {
        self.nodes.len() - self.retired
    }

    /// The connection string with all nodes, and a database.
    pub(super) fn uri(&self, database: &str) -> String {
        let addresses: Vec<String> =
            self.options.iter().map(|options| format!("127.0.0.1:{}", options.port)).collect();
        format!("mongodb://{}/{database}", addresses.join(","))
    }

    /// The names of the nodes.
    pub(super) fn name(&self, node: usize) -> &str {
        self.options.get(node).map_or("?", |options| options.name.as_str())
    }

    /// Kills a node as a crash would.
    pub(super) async fn kill(&mut self, node: usize) -> Result<(), Failure> {
        match self.nodes.get_mut(node).and_then(Option::take) {
            Some(server) => server.kill().await,
            None => Err(Failure::refused("the node is not running")),
        }
    }

    /// Starts a node again that was killed.
    pub(super) async fn restart(&mut self, node: usize) -> Result<(), Failure> {
        let options =
            self.options.get(node).cloned().ok_or_else(|| Failure::refused("there is no such node"))?;
        let server = Server::start(options).await?;
        if let Some(place) = self.nodes.get_mut(node) {
            *place = Some(server);
        }
        Ok(())
    }

    /// The node whose replica of a collection's shard is the primary.
    pub(super) async fn primary_of(&self, namespace: &str) -> Result<usize, Failure> {
        let deadline = Instant::now() + FORM_TIMEOUT;
        loop {
            let status = self.status().await?;
            let leads = |node: &&Document| replicas(node).any(|replica| is_primary_of(replica, namespace));
            let primary =
                nodes(&status).find(leads).and_then(|node| node.get_str("name").ok().map(str::to_owned));
            let position =
                primary.and_then(|name| self.options.iter().position(|options| options.name == name));
            if let Some(position) = position {
                return Ok(position);
            }
            if Instant::now() > deadline {
                return Err(Failure::refused(format!("{namespace} has no primary")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until every replica that the catalog places is there, and has almost everything that its primary has.
    pub(super) async fn wait_until_replicated(&self) -> Result<Duration, Failure> {
        let started = Instant::now();
        loop {
            let status = self.status().await?;
            if is_replicated(&status, self.len()) {
                return Ok(started.elapsed());
            }
            if started.elapsed() > FORM_TIMEOUT {
                return Err(Failure::refused(format!("the nodes did not become one cluster: {status}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for Ctrl-C, SIGTERM, or the first node's own end.
    pub(super) async fn wait_for_signal(&mut self) -> Result<(), Failure> {
        match self.nodes.iter_mut().flatten().next() {
            Some(first) => first.wait_for_signal().await,
            None => Ok(()),
        }
    }

    /// Asks all nodes to stop, and waits until they have.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        let stopping = self.nodes.into_iter().flatten().map(Server::stop);
        futures::future::join_all(stopping).await.into_iter().fold(Ok(()), Result::and)
    }

    /// What `psdbStatus` says, from a node that runs.
    pub(super) async fn status(&self) -> Result<Document, Failure> {
        let running = self.nodes.iter().flatten().next();
        let running = running.ok_or_else(|| Failure::refused("no node is running"))?;
        let connection = Connection::open(&running.uri("admin")).await?;
        Ok(connection.database("admin").run_command(doc! { "psdbStatus": 1 }).await?)
    }
}

fn documents<'d>(document: &'d Document, name: &str) -> impl Iterator<Item = &'d Document> + use<'d> {
    document.get_array(name).into_iter().flatten().filter_map(Bson::as_document)
}

fn nodes(status: &Document) -> impl Iterator<Item = &Document> {
    documents(status, "nodes")
}

fn replicas(node: &Document) -> impl Iterator<Item = &Document> {
    documents(node, "replicas")
}

fn is_primary_of(replica: &Document, namespace: &str) -> bool {
    replica.get_str("collection").is_ok_and(|collection| collection == namespace)
        && replica.get_str("role").is_ok_and(|role| role == "primary")
}

/// Whether each shard's primary counts as many voters as there can be, none of them far behind.
fn is_replicated(status: &Document, count: usize) -> bool {
    if nodes(status).count() < count || documents(status, "shards").next().is_none() {
        return false;
    }
    documents(status, "shards").all(|shard| {
        let number = shard.get_i64("shard").unwrap_or_default();
        let primaries = nodes(status).flat_map(replicas).filter(|replica| {
            replica.get_i64("shard").is_ok_and(|found| found == number)
                && replica.get_str("role").is_ok_and(|role| role == "primary")
        });
        let wanted = count.min(3) as u64;
        primaries.into_iter().any(|primary| {
            let committed = primary.get_i64("committed").unwrap_or_default();
            let current = documents(primary, "members").filter(|member| {
                (member.get_bool("votes").unwrap_or(false) || count == 2)
                    && member.get_i64("matched").is_ok_and(|matched| matched + 64 >= committed)
            });
            current.count() as u64 >= wanted
        })
    })
}
