//! A node that serves the wire protocol with a router that only records.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Clock, Entropy, MonoTime};
use bson::Document;
use tokio::runtime::Runtime;
use wire::{Facts, Machine, Settings, State};

use super::recorder::Recorder;

/// A served state and the runtime it is served on.
pub(crate) struct Node {
    pub(crate) runtime: Runtime,
    pub(crate) address: SocketAddr,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) state: Arc<State>,
}

impl Node {
    pub(crate) fn start(settings: Settings) -> Node {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        let recorder = Arc::new(Recorder::default());
        let state = Arc::new(State::new(
            recorder.clone(),
            Arc::new(FixedFacts),
            Arc::new(FixedClock),
            Arc::new(Counting::default()),
            settings,
        ));
        let listener =
            runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        runtime.spawn(wire::serve(state.clone(), listener));
        Node { runtime, address, recorder, state }
    }
}

struct FixedClock;

impl Clock for FixedClock {
    fn monotonic(&self) -> MonoTime {
        MonoTime(std::time::Duration::from_secs(100))
    }

    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

struct FixedFacts;

impl Facts for FixedFacts {
    fn host_name(&self) -> String {
        "host".to_owned()
    }

    fn memory(&self) -> (u64, u64) {
        (64 << 20, 128 << 20)
    }

    fn machine(&self) -> Machine {
        Machine { memory_bytes: 8 << 30, cores: 2, os_name: "Linux".into(), os_version: "6.0".into() }
    }

    fn arguments(&self) -> Vec<String> {
        vec!["psdb".to_owned(), "start".to_owned()]
    }

    fn parsed_options(&self) -> Document {
        bson::doc! { "net": { "port": 27_017 } }
    }

    fn recent_log(&self) -> Vec<String> {
        vec!["first line".to_owned()]
    }

    fn status(&self) -> Document {
        Document::new()
    }
}
