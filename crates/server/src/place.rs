//! How a node with an empty data directory comes to belong to a cluster: it founds one, or joins one.
//!
//! Called once, at the first start. Always holds: at most one node of a configuration founds, and only after all the others
//! have said that they are empty too; whoever finds a running cluster joins it, under a new id.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{Entropy, NodeId};
use router::FIRST_NODE;
use router::peer::PeerFailure;
use rpc::{JoinReply, JoinRequest};
use storage::Identity;
use tracing::{info, warn};

use crate::Failure;
use crate::options::Settings;
use crate::peers::{ROUTER_ROLE, STORAGE_ROLE};

/// How long one attempt at another node may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// How many attempts pass between two lines in the log.
const ATTEMPTS_A_LINE: u64 = 25;

/// A node's place in a cluster.
pub(crate) struct Place {
    pub(crate) identity: Identity,
    /// Where other nodes are, as far as is known.
    pub(crate) peers: BTreeMap<NodeId, String>,
}

/// What an empty node knows of its cluster-to-be.
pub(crate) struct Newcomer<'a> {
    pub(crate) settings: &'a Settings,
    /// Where clients reach it.
    pub(crate) listen: String,
    /// Where other nodes reach it.
    pub(crate) peer: String,
    pub(crate) entropy: &'a dyn Entropy,
}

impl Newcomer<'_> {
    /// Finds the node's place, however long that takes. Fails when a cluster refuses it.
    pub(crate) async fn find_place(&self) -> Result<Place, Failure> {
        let token = random_id(self.entropy);
        let seeds = &self.settings.join;
        if !seeds.is_empty() {
            return self.join_one_of(seeds, &token).await;
        }
        let others = &self.settings.others;
        let mut attempts = 0;
        loop {
            let standing = stand(others).await;
            if !standing.running.is_empty() {
                return self.join_one_of(&standing.running, &token).await;
            }
            if standing.silent.is_empty() && self.settings.founds {
                return Ok(self.found());
            }
            if attempts % ATTEMPTS_A_LINE == 0 {
                match self.settings.founds {
                    true => {
                        info!("waiting for the other nodes before the cluster forms: {:?}", standing.silent)
                    }
                    false => info!("waiting for the first node of the configuration to form the cluster"),
                }
            }
            attempts += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn found(&self) -> Place {
        let identity = Identity { cluster_id: random_id(self.entropy), node_id: FIRST_NODE };
        Place { identity, peers: BTreeMap::new() }
    }

    async fn join_one_of(&self, seeds: &[String], token: &str) -> Result<Place, Failure> {
        let mut attempts = 0;
        loop {
            for seed in seeds {
                match rpc::join(seed, self.join_request(token), ATTEMPT_TIMEOUT).await {
                    Ok(reply) => return Ok(joined(reply)),
                    Err(PeerFailure::Refused { error, .. }) if is_final(&error) => {
                        return Err(Failure::Start(format!("{seed} refuses this node: {}", error.message)));
                    }
                    Err(failure) if attempts % ATTEMPTS_A_LINE == 0 => {
                        warn!("cannot join through {seed} yet: {}", reason(&failure));
                    }
                    Err(_) => {}
                }
            }
            attempts += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn join_request(&self, token: &str) -> JoinRequest {
        let mut roles = vec![ROUTER_ROLE.to_owned()];
        if self.settings.storage {
            roles.push(STORAGE_ROLE.to_owned());
        }
        JoinRequest {
            name: self.settings.name_at(&self.listen),
            listen: self.listen.clone(),
            peer: self.peer.clone(),
            roles,
            labels: self.settings.labels.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_name: self.settings.cluster_name.clone(),
            token: token.to_owned(),
        }
    }
}

/// What the other nodes of a configuration say.
#[derive(Default)]
struct Standing {
    /// Addresses of those that belong to a cluster.
    running: Vec<String>,
    /// Addresses of those that do not answer.
    silent: Vec<String>,
}

async fn stand(others: &[String]) -> Standing {
    let mut standing = Standing::default();
    for address in others {
        match rpc::greet(address, GREETING_TIMEOUT).await {
            Ok(greeting) if greeting.cluster_id.is_some() => standing.running.push(address.clone()),
            Ok(_) => {}
            Err(_) => standing.silent.push(address.clone()),
        }
    }
    standing
}

fn joined(reply: JoinReply) -> Place {
    let JoinReply { cluster_id, node, peers } = reply;
    Place { identity: Identity { cluster_id, node_id: node }, peers }
}

/// Whether asking again is pointless.
fn is_final(error: &base::Error) -> bool {
    use base::Code;
    matches!(error.code, Code::CONFLICTING_OPERATION_IN_PROGRESS | Code::BAD_VALUE | Code::INVALID_OPTIONS)
}

fn reason(failure: &PeerFailure) -> String {
    match failure {
        PeerFailure::Unreachable(reason) => reason.clone(),
        PeerFailure::Refused { error, .. } => error.message.clone(),
    }
}

/// A UUID as text.
fn random_id(entropy: &dyn Entropy) -> String {
    let random = (u128::from(entropy.next_u64()) << 64) | u128::from(entropy.next_u64());
    uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid().to_string()
}
