//! The admin address: metrics and health over plain HTTP/1.1.
//!
//! Started by [`crate::node`] before the node has found its place in a cluster, so that a probe hears why it waits; ended
//! after everything else. [`respond`] is where another page would be added. Always holds: nothing here changes anything;
//! a connection carries one request, whose head and time are limited and whose body is never read.

mod exposition;
mod health;
mod page;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::limits::{ADMIN_CONNECTION_MS_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_REQUEST_BYTES_MAX};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, warn};

pub(crate) use self::health::{NodeView, Running};
use crate::Failure;

/// After a failed accept (out of file descriptors, most often), before the next try.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// What the service takes at most.
#[derive(Clone, Copy)]
struct Limits {
    connections: usize,
    request_bytes: usize,
    connection_time: Duration,
}

/// The running service. Dropping it ends it; [`Admin::stop`] waits until it has.
pub(crate) struct Admin {
    address: SocketAddr,
    view: Arc<NodeView>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Admin {
    /// Serves what `view` says, on a socket that is bound already.
    pub(crate) fn start(listener: TcpListener, view: Arc<NodeView>) -> Result<Admin, Failure> {
        let limits = Limits {
            connections: ADMIN_CONNECTIONS_MAX,
            request_bytes: ADMIN_REQUEST_BYTES_MAX,
            connection_time: Duration::from_millis(ADMIN_CONNECTION_MS_MAX),
        };
        Admin::start_within(listener, view, limits)
    }

    fn start_within(listener: TcpListener, view: Arc<NodeView>, limits: Limits) -> Result<Admin, Failure> {
        let address = listener.local_addr().map_err(|error| Failure::Listen(error.to_string()))?;
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, view.clone(), limits, stopped));
        Ok(Admin { address, view, stop, serving })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the service. On return nothing of it uses the node's engines any more.
    pub(crate) async fn stop(self) {
        let Admin { view, stop, serving, .. } = self;
        drop(stop);
        if let Err(error) = serving.await {
            warn!(%error, "the admin address ended by a broken invariant");
        }
        view.wait_collected().await;
    }
}

/// Accepts until the other end of `stopped` is gone.
async fn serve(
    listener: TcpListener,
    view: Arc<NodeView>,
    limits: Limits,
    mut stopped: oneshot::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            _ = &mut stopped => break,
            (accepted, place) = accepted => match accepted {
                Ok((stream, _)) => {
                    let view = view.clone();
                    tasks.spawn(async move {
                        let _place = place;
                        converse(stream, view, limits).await;
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection to the admin address");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            },
            // Only so that those that have ended are forgotten.
            Some(_) = tasks.join_next() => {}
        }
    }
    tasks.shutdown().await;
}

/// One connection, which is one request.
async fn converse(stream: TcpStream, view: Arc<NodeView>, limits: Limits) {
    let service = service_fn(move |request| {
        let view = view.clone();
        async move { Ok::<_, Infallible>(respond(&request, view).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        // The time of the whole connection is limited below.
        .header_read_timeout(None)
        .max_buf_size(limits.request_bytes)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(limits.connection_time, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection to the admin address broke"),
        Err(_) => debug!("a connection to the admin address took too long"),
    }
}

/// The answer to a request, whatever it is.
async fn respond<B>(request: &Request<B>, view: Arc<NodeView>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => metrics(view).await,
        "/healthz" => verdict(view.health()),
        "/readyz" => verdict(view.readiness()),
        _ => text(StatusCode::NOT_FOUND, "there is nothing here; ask for /metrics, /healthz or /readyz"),
    }
}

async fn metrics(view: Arc<NodeView>) -> Response<Full<Bytes>> {
    match view.collect().await {
        Ok(page) => response(StatusCode::OK, exposition::CONTENT_TYPE, page),
        Err(reason) => text(StatusCode::INTERNAL_SERVER_ERROR, &reason),
    }
}

fn verdict(said: Result<(), String>) -> Response<Full<Bytes>> {
    match said {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

/// A sentence on a line of its own.
fn text(status: StatusCode, sentence: &str) -> Response<Full<Bytes>> {
    response(status, PLAIN_TEXT, format!("{sentence}\n"))
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::SystemClock;

    async fn start(connections: usize, connection_time: Duration) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let limits = Limits { connections, request_bytes: ADMIN_REQUEST_BYTES_MAX, connection_time };
        let view = Arc::new(NodeView::new(Arc::new(SystemClock::default())));
        Admin::start_within(listener, view, limits).expect("starts")
    }

    async fn get(admin: &Admin, path: &str) -> String {
        let mut stream = TcpStream::connect(admin.address()).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("a whole answer");
        answer
    }

    #[tokio::test]
    async fn a_node_without_a_cluster_is_healthy_and_says_why_it_is_not_ready() {
        let admin = start(4, Duration::from_secs(60)).await;
        assert!(get(&admin, "/healthz").await.starts_with("HTTP/1.1 200"));
        let answer = get(&admin, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("does not belong"), "{answer}");
        let page = get(&admin, "/metrics").await;
        assert!(page.contains("\npsdb_ready 0\n") && page.contains("\npsdb_build_info{"), "{page}");
        admin.stop().await;
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_let_go_and_the_next_one_is_answered() {
        let admin = start(1, Duration::from_millis(50)).await;
        let mut silent = TcpStream::connect(admin.address()).await.expect("connects");
        assert!(get(&admin, "/healthz").await.starts_with("HTTP/1.1 200"), "it waits for the only place");
        assert_eq!(silent.read(&mut [0; 1]).await.ok(), Some(0), "the silent one was let go");
        admin.stop().await;
    }

    #[tokio::test]
    async fn a_stop_ends_connections_that_wait() {
        let admin = start(4, Duration::from_secs(3_600)).await;
        let mut silent = TcpStream::connect(admin.address()).await.expect("connects");
        assert!(get(&admin, "/healthz").await.starts_with("HTTP/1.1 200"));
        admin.stop().await;
        assert_eq!(silent.read(&mut [0; 1]).await.ok(), Some(0));
    }
}
