//! Where the work of a node's replicas runs: tasks for owner loops, and places that may block on the disk.
//!
//! [`ThreadSpawner`] is the real one; the simulator has its own, single-threaded one.

use std::sync::mpsc;

use base::ReplicaId;
use futures::future::BoxFuture;

/// A piece of work that may block on the disk.
pub type Work = Box<dyn FnOnce() + Send>;

/// Runs the work of replicas.
pub trait Spawner: Send + Sync + 'static {
    /// Runs a task that never blocks.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Runs work that may block for long: flushes, creating and dropping keyspaces.
    fn blocking(&self, work: Work);

    /// Runs work that applies committed entries. Work of the same replica runs one after the other, in this order.
    fn apply(&self, replica: ReplicaId, work: Work);
}

/// Tasks on a tokio runtime; applying on threads of its own, since the store's backpressure sleeps there.
pub struct ThreadSpawner {
    runtime: tokio::runtime::Handle,
    apply: Vec<mpsc::Sender<Work>>,
}

impl ThreadSpawner {
    /// Starts `apply_threads` threads, which end when the spawner is dropped.
    pub fn new(runtime: tokio::runtime::Handle, apply_threads: usize) -> std::io::Result<ThreadSpawner> {
        let start = |number: usize| {
            let (sender, receiver) = mpsc::channel::<Work>();
            std::thread::Builder::new()
                .name(format!("apply-{number}"))
                .spawn(move || receiver.into_iter().for_each(|work| work()))?;
            Ok(sender)
        };
        let apply = (0..apply_threads.max(1)).map(start).collect::<std::io::Result<_>>()?;
        Ok(ThreadSpawner { runtime, apply })
    }
}

impl Spawner for ThreadSpawner {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    fn blocking(&self, work: Work) {
        self.runtime.spawn_blocking(work);
    }

    fn apply(&self, replica: ReplicaId, work: Work) {
        let threads = self.apply.len() as u64;
        let chosen = usize::try_from(replica.get() % threads).expect("below the number of threads");
        if let Some(thread) = self.apply.get(chosen) {
            // A thread that is gone panicked in a store; the work is dropped, and whoever waits for it gets an error.
            let _ = thread.send(work);
        }
    }
}
