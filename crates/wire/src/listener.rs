//! Accepts connections and keeps count of them.
//!
//! `server` binds the socket and calls [`serve`]; it returns when the state was told to stop and every connection has
//! finished its command. Always holds: no more connections than the limit; each runs in a task of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::connection::{Connection, End};
use crate::state::{Client, State, stop_wanted};

/// After a failed accept (out of file descriptors, most often), before the next try.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long running commands may take to end once the node stops; then they are interrupted.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long interrupted commands may take to notice.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(2);

/// Serves clients until [`State::stop`].
pub async fn serve(state: Arc<State>, listener: TcpListener) {
    let mut stopping = state.stopping();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => accept(&state, &mut tasks, accepted).await,
            Some(ended) = tasks.join_next() => report(ended),
            () = stop_wanted(&mut stopping) => break,
        }
    }
    drop(listener);
    drain(&state, tasks).await;
}

async fn accept(state: &Arc<State>, tasks: &mut JoinSet<()>, accepted: io::Result<(TcpStream, SocketAddr)>) {
    let (stream, peer) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            return;
        }
    };
    let Some(client) = state.clients.register(peer, state.settings.connections_max) else {
        state.metrics.connections_rejected.add(1);
        warn!(%peer, limit = state.settings.connections_max, "connection refused: too many connections");
        return;
    };
    tasks.spawn(run(Arc::clone(state), client, stream));
}

async fn run(state: Arc<State>, client: Arc<Client>, stream: TcpStream) {
    let _open = Open::new(Arc::clone(&state), Arc::clone(&client));
    // Replies are written whole, so that waiting for more to send along only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(connection = client.id, %error, "cannot set TCP_NODELAY");
    }
    debug!(connection = client.id, peer = %client.peer, "connection opened");
    let end = Connection::new(state, Arc::clone(&client), stream).serve().await;
    match end {
        End::Orderly => debug!(connection = client.id, "connection closed"),
        End::Socket(error) => debug!(connection = client.id, %error, "connection lost"),
        End::Protocol(reason) => {
            warn!(connection = client.id, peer = %client.peer, reason, "connection closed")
        }
    }
}

/// Counts a connection for as long as it lives, also when its task panics.
struct Open {
    state: Arc<State>,
    client: Arc<Client>,
}

impl Open {
    fn new(state: Arc<State>, client: Arc<Client>) -> Open {
        state.metrics.connections.fetch_add(1, Ordering::Relaxed);
        state.metrics.connections_created.add(1);
        Open { state, client }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.state.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        self.state.clients.remove(self.client.id);
    }
}

async fn drain(state: &State, mut tasks: JoinSet<()>) {
    info!(connections = tasks.len(), "no longer accepting connections");
    let drained = tokio::time::timeout(DRAIN_LIMIT, join_all(&mut tasks)).await;
    if drained.is_err() {
        warn!(connections = tasks.len(), "interrupting commands that still run");
        state.clients.interrupt_all();
        let noticed = tokio::time::timeout(INTERRUPT_LIMIT, join_all(&mut tasks)).await;
        if noticed.is_err() {
            warn!(connections = tasks.len(), "abandoning commands that did not notice");
        }
    }
    tasks.shutdown().await;
}

async fn join_all(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        warn!(%error, "a connection ended by a broken invariant");
    }
}
