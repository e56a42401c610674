//! Protocol traces, by scripts in `tests/scripts/protocol`: every step of one replica, in the order in which it happens.
//!
//! `start` and `create` set up; `send` gives commands to the owner loop at once (`set k v`, `insert k v`, `incr k`,
//! `delete k`, `get k`); `fsync`, `write` (without fsync) and `apply` let the disk and the store do what waits; `crash`
//! loses what was not synced, `kill` only the process; `read k` reads past the owner loop; `flush` waits for the timer.

use std::error::Error;

use goldenscript::{Command, Context, Runner};
use replica::HostOf;
use storage::memory::{DiskPart, MemoryDisk};
use tokio::task::JoinHandle;

use crate::support::{KvMachine, KvReply, Node, NodeOptions, machine_command, run_scripts, words};

#[test]
fn a_replica_steps_as_its_scripts_say() {
    run_scripts("protocol", |runtime| Trace {
        runtime,
        disk: MemoryDisk::new(),
        node: None,
        clients: Vec::new(),
        log_entries_max: u64::MAX,
    });
}

struct Trace {
    runtime: tokio::runtime::Runtime,
    disk: MemoryDisk,
    node: Option<Node>,
    /// Commands that were sent and are not answered: their texts and whoever waits for them.
    clients: Vec<(String, JoinHandle<base::Result<KvReply>>)>,
    log_entries_max: u64,
}

impl Runner for Trace {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Box<dyn Error>> {
        let words = words(command);
        let mut lines = Vec::new();
        match (command.name.as_str(), &words[..]) {
            ("compact-after", [entries]) => self.log_entries_max = entries.parse()?,
            ("start", []) => lines.extend(self.start()),
            ("create", []) => {
                let node = self.node.as_ref().ok_or("no process runs")?;
                self.runtime.block_on(node.create())?;
            }
            ("send", commands) => commands.iter().try_for_each(|text| self.send(text))?,
            ("read", [key]) => lines.push(self.read(key)?),
            ("state", []) => {
                let state = self.node()?.handle().state();
                lines.push(String::from_utf8_lossy(state.as_deref().unwrap_or_default()).into_owned());
            }
            ("fsync", []) => self.node()?.fsync(),
            ("write", []) => self.node()?.write_without_fsync(),
            ("apply", []) => self.node()?.apply(),
            ("fail-fsync", []) => self.disk.fail_next_fsync(DiskPart::RaftLog),
            ("flush", []) => {
                self.runtime.block_on(async { tokio::time::sleep(std::time::Duration::from_secs(6)).await });
            }
            ("damage", [index]) => {
                let index = base::LogIndex(index.parse()?);
                assert!(self.disk.flip_log_bit(crate::support::REPLICA, index, 40), "the entry exists");
            }
            ("drop", []) => {
                let node = self.node.take().ok_or("no process runs")?;
                self.runtime.block_on(async {
                    let dropping = node.host.drop_replica(crate::support::SHARD);
                    tokio::pin!(dropping);
                    loop {
                        tokio::select! {
                            biased;
                            dropped = &mut dropping => return dropped,
                            () = tokio::task::yield_now() => node.fsync(),
                        }
                    }
                })?;
                self.node = Some(node);
            }
            ("shutdown", []) => {
                let node = self.node.take().ok_or("no process runs")?;
                self.runtime.block_on(node.host.shutdown())?;
                lines.extend(node.take_events());
                node.kill();
            }
            ("crash" | "kill", []) => {
                let node = self.node.take().ok_or("no process runs")?;
                match command.name.as_str() {
                    "crash" => node.crash(),
                    _ => node.kill(),
                };
            }
            (name, _) => return Err(format!("unknown command {name}").into()),
        }
        lines.extend(self.settle());
        Ok(lines.join("\n"))
    }
}

impl Trace {
    fn node(&self) -> Result<&Node, Box<dyn Error>> {
        self.node.as_ref().ok_or_else(|| "no process runs".into())
    }

    fn start(&mut self) -> Vec<String> {
        let options = NodeOptions { manual: true, log_entries_max: self.log_entries_max };
        match self.runtime.block_on(Node::start(&self.disk, options)) {
            Ok(node) => {
                let keyspaces = node.host.replicas().len();
                self.node = Some(node);
                vec![format!("started with {keyspaces} replicas")]
            }
            Err(fault) => vec![format!("fault: {fault}")],
        }
    }

    fn send(&mut self, text: &str) -> Result<(), Box<dyn Error>> {
        let command = machine_command(text)?;
        let handle = self.node()?.handle();
        let client = self.runtime.spawn(async move { handle.write(command).await });
        self.clients.push((text.to_owned(), client));
        Ok(())
    }

    fn read(&self, key: &str) -> Result<String, Box<dyn Error>> {
        let Some((view, _)) = self.node()?.handle().try_read()? else { return Ok("waits".to_owned()) };
        let value: Option<bytes::Bytes> = view.get(key.as_bytes())?;
        Ok(value.map_or("nothing".to_owned(), |value| String::from_utf8_lossy(&value).into_owned()))
    }

    /// Lets everything run, then says what happened and who was answered.
    fn settle(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(node) = &self.node {
            self.runtime.block_on(node.settle());
            lines.extend(node.take_events());
            if let Some(fault) = node.host.fault_latch().get() {
                lines.push(format!("the node stops: {fault}"));
            }
        } else {
            self.runtime.block_on(async { tokio::task::yield_now().await });
        }
        let (done, waiting) =
            std::mem::take(&mut self.clients).into_iter().partition(|(_, task)| task.is_finished());
        self.clients = waiting;
        let done: Vec<(String, JoinHandle<_>)> = done;
        for (text, task) in done {
            let answer = match self.runtime.block_on(task).expect("clients do not panic") {
                Ok(Some(value)) => value,
                Ok(None) => "ok".to_owned(),
                Err(error) => error.to_string(),
            };
            lines.push(format!("{text} -> {answer}"));
        }
        lines
    }
}

/// The host can be shared by the threads of a runtime.
#[test]
fn a_host_is_send_and_sync() {
    fn check<T: Send + Sync + 'static>() {}
    check::<HostOf<KvMachine, KvMachine>>();
}
