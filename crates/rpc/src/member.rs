//! How a node finds a cluster and joins it: two calls outside of the streams, since who makes them has no id yet.
//!
//! Called by `server` before it starts, and by the command line.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use base::NodeId;
use router::peer::PeerFailure;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::convert::Wire;
use crate::v1::peer_client::PeerClient;
use crate::{link, v1};

/// A node that wants to belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// Its name in its configuration.
    pub name: String,
    /// Where clients reach it, `host:port`.
    pub listen: String,
    /// Where other nodes reach it, `host:port`.
    pub peer: String,
    /// What it is there for.
    pub roles: Vec<String>,
    /// Where it stands (zone, rack).
    pub labels: BTreeMap<String, String>,
    /// The version of its program.
    pub version: String,
    /// The name of the cluster that it means; `None` for any.
    pub cluster_name: Option<String>,
    /// Drawn by the node that joins, not empty: a request that is sent again finds the node that it added.
    pub token: String,
}

/// What a node that belongs from now on has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinReply {
    /// The cluster.
    pub cluster_id: String,
    /// Its own id from now on.
    pub node: NodeId,
    /// Where it reaches the others, `host:port`.
    pub peers: BTreeMap<NodeId, String>,
}

/// Who answers at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The cluster that the node belongs to; `None` while it belongs to none.
    pub cluster_id: Option<String>,
    /// Its id in there.
    pub node: Option<NodeId>,
    /// Its name in its configuration.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// Whether its data directory is empty.
    pub empty: bool,
}

/// Asks the node at `address` (`host:port`) to take this one into its cluster. Fails with `Unreachable` when nobody knows
/// whether it did, with `Refused` when it did not.
pub async fn join(address: &str, request: JoinRequest, timeout: Duration) -> Result<JoinReply, PeerFailure> {
    let refused = |error| PeerFailure::Refused { error, primary: None };
    let request = request.into_wire().map_err(refused)?;
    let answer = call(address, timeout, async |mut client| client.join(request).await).await?;
    match Result::from_wire(answer) {
        Ok(outcome) => outcome.map_err(refused),
        Err(error) => {
            Err(PeerFailure::Unreachable(format!("{address} answered with what does not decode: {error}")))
        }
    }
}

/// Asks who answers at `address` (`host:port`). Fails with `Unreachable`.
pub async fn greet(address: &str, timeout: Duration) -> Result<Greeting, PeerFailure> {
    let greeting = call(address, timeout, async |mut client| client.greet(v1::GreetRequest {}).await).await?;
    Greeting::from_wire(greeting).map_err(|error| PeerFailure::Unreachable(error.to_string()))
}

/// Makes one call on a connection of its own.
async fn call<T, F>(
    address: &str,
    timeout: Duration,
    call: impl FnOnce(PeerClient<Channel>) -> F,
) -> Result<T, PeerFailure>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let unreachable = |reason: String| PeerFailure::Unreachable(format!("{address}: {reason}"));
    let answered = async {
        let channel = link::connect(address, timeout).await.map_err(unreachable)?;
        let answer = call(link::client(channel)).await;
        answer.map(Response::into_inner).map_err(|status| unreachable(status.message().to_owned()))
    };
    let late = |_| unreachable(format!("no answer within {} ms", timeout.as_millis()));
    tokio::time::timeout(timeout, answered).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}
