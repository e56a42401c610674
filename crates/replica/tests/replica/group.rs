//! Protocol traces of groups of replicas, by scripts in `tests/scripts/group`: what each replica sends, receives and does,
//! in the words of the Raft paper. Heartbeats are left out unless `heartbeats` asks for them.
//!
//! `start N..` and `create N..` set up, `crash N`, `stop N` and `start N` end and begin processes, `cut A B` loses what A
//! sends to B (`cut A B both` also what B sends), `heal` ends that; `stall N` makes log writes of node N wait for `go-on N`;
//! `linger N MS` makes the next command on node N take as long to evaluate; `drop N` drops node N's replica; `run MS` lets
//! time pass; `send N COMMAND..` gives commands to node N's replica, `read N KEY` reads there as clients do and
//! `read-behind N KEY` whatever it has; `add N NEW`, `promote N OLD`, `demote N OLD`, `remove N OLD` change the membership
//! through node N, `replace N OLD NEW` both at once, `remove-later N OLD MS` that much later; `transfer N TO` hands over; `heard N` says which members
//! node N relies on, and `stir N` wakes its group; `status` says how things are.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use base::NodeId;
use goldenscript::{Command, Context, Runner};
use replica::MemberChange;
use tokio::task::JoinHandle;

use crate::support::{Cluster, SHARD, machine_command, run_scripts, words};

#[test]
fn a_group_steps_as_its_scripts_say() {
    run_scripts("group", |runtime| Trace {
        runtime,
        cluster: Cluster::new(u64::MAX),
        clients: Vec::new(),
        heartbeats: false,
    });
}

struct Trace {
    runtime: tokio::runtime::Runtime,
    cluster: Cluster,
    /// What was asked and is not answered.
    clients: Vec<(String, JoinHandle<String>)>,
    heartbeats: bool,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

impl Runner for Trace {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Outcome<String> {
        let words = words(command);
        let mut lines = Vec::new();
        match (command.name.as_str(), &words[..]) {
            ("heartbeats", [on]) => self.heartbeats = *on == "on",
            ("compact-after", [entries]) => self.cluster = Cluster::new(entries.parse()?),
            ("start", numbers) => {
                for node in nodes(numbers)? {
                    self.runtime.block_on(self.cluster.start(node));
                }
            }
            ("create", numbers) => {
                let nodes = nodes(numbers)?;
                self.runtime.block_on(self.cluster.create(&nodes));
            }
            ("crash", [number]) => {
                lines.extend(self.events());
                // A process crashes inside a runtime, as everything of it lives there.
                let _inside = self.runtime.enter();
                self.cluster.crash(node(number)?);
            }
            ("stop", [number]) => {
                let node = node(number)?;
                let stopping = self.cluster.node(node).host.clone();
                self.runtime.block_on(stopping.shutdown())?;
                lines.extend(self.events());
                self.runtime.block_on(self.cluster.stop(node));
            }
            ("drop", [number]) => {
                let host = self.cluster.node(node(number)?).host.clone();
                self.runtime.spawn(async move { host.drop_replica(SHARD).await });
            }
            ("stall", [number]) => self.cluster.node(node(number)?).stall(),
            ("go-on", [number]) => {
                let _inside = self.runtime.enter();
                self.cluster.node(node(number)?).go_on();
            }
            ("linger", [number, ms]) => self.cluster.node(node(number)?).linger(ms.parse()?),
            ("cut", [from, to]) => self.cluster.cut(node(from)?, node(to)?),
            ("cut", [one, other, "both"]) => {
                self.cluster.cut(node(one)?, node(other)?);
                self.cluster.cut(node(other)?, node(one)?);
            }
            ("heal", []) => self.cluster.heal(),
            ("run", [ms]) => {
                let passing = Duration::from_millis(ms.parse()?);
                self.runtime.block_on(async { tokio::time::sleep(passing).await });
            }
            ("send", [number, commands @ ..]) => {
                for text in commands {
                    self.send(node(number)?, text)?;
                }
            }
            ("read", [number, key]) => self.read(node(number)?, key),
            ("read-behind", [number, key]) => {
                let handle = self.cluster.handle(node(number)?);
                let (view, _) = self.runtime.block_on(handle.read_behind())?;
                lines.push(show(view.get(key.as_bytes())?));
            }
            ("add", [number, new]) => {
                let new = node(new)?;
                self.change(node(number)?, vec![MemberChange::AddLearner(Cluster::replica_on(new), new)]);
            }
            ("demote", [number, old]) => {
                let old = node(old)?;
                self.change(node(number)?, vec![MemberChange::AddLearner(Cluster::replica_on(old), old)]);
            }
            ("promote", [number, old]) => {
                self.change(node(number)?, vec![MemberChange::Promote(Cluster::replica_on(node(old)?))]);
            }
            ("remove", [number, old]) => {
                self.change(node(number)?, vec![MemberChange::Remove(Cluster::replica_on(node(old)?))]);
            }
            ("remove-later", [number, old, ms]) => {
                let changes = vec![MemberChange::Remove(Cluster::replica_on(node(old)?))];
                self.change_later(node(number)?, changes, Duration::from_millis(ms.parse()?));
            }
            ("replace", [number, old, new]) => {
                let (old, new) = (Cluster::replica_on(node(old)?), Cluster::replica_on(node(new)?));
                self.change(node(number)?, vec![MemberChange::Promote(new), MemberChange::Remove(old)]);
            }
            ("transfer", [number, to]) => {
                let handle = self.cluster.handle(node(number)?);
                let to = Cluster::replica_on(node(to)?);
                self.runtime.block_on(handle.transfer_to(to));
            }
            ("heard", [number]) => {
                let handle = self.cluster.handle(node(number)?);
                let heard = self.runtime.block_on(handle.progress_of_heard());
                lines.push(format!("n{number} has heard {:?}", heard.into_keys().collect::<Vec<_>>()));
            }
            ("stir", [number]) => {
                let handle = self.cluster.handle(node(number)?);
                self.runtime.block_on(handle.stir());
            }
            ("status", []) => lines.extend(self.status()),
            (name, _) => return Err(format!("unknown command {name}").into()),
        }
        lines.extend(self.settle());
        Ok(lines.join("\n"))
    }
}

impl Trace {
    fn send(&mut self, node: NodeId, text: &str) -> Outcome<()> {
        let command = machine_command(text)?;
        let handle = self.cluster.handle(node);
        let client = self.runtime.spawn(async move {
            match handle.write(command).await {
                Ok(Some(value)) => value,
                Ok(None) => "ok".to_owned(),
                Err(error) => error.to_string(),
            }
        });
        self.clients.push((format!("{node}: {text}"), client));
        Ok(())
    }

    fn read(&mut self, node: NodeId, key: &str) {
        let handle = self.cluster.handle(node);
        let wanted = key.to_owned();
        let client = self.runtime.spawn(async move {
            match handle.read().await {
                Ok((view, _)) => show(view.get(wanted.as_bytes()).expect("readable")),
                Err(error) => error.to_string(),
            }
        });
        self.clients.push((format!("{node}: read {key}"), client));
    }

    fn change(&mut self, node: NodeId, changes: Vec<MemberChange>) {
        self.change_later(node, changes, Duration::ZERO);
    }

    /// What arrives at that time is there before.
    fn change_later(&mut self, node: NodeId, changes: Vec<MemberChange>, later: Duration) {
        let handle = self.cluster.handle(node);
        let text = format!("{node}: {changes:?}");
        let change = async move {
            match handle.change_membership(handle.membership(), changes).await {
                Ok(index) => format!("committed as {index}"),
                Err(error) => error.to_string(),
            }
        };
        let client = self.runtime.spawn(async move {
            tokio::time::sleep(later).await;
            tokio::spawn(change).await.expect("clients do not panic")
        });
        self.clients.push((text, client));
    }

    fn status(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, node) in self.cluster.nodes() {
            for status in node.host.replicas() {
                let role = if status.is_leader { "leads" } else { "follows" };
                let (term, commit, applied) = (status.term, status.commit, status.applied);
                let generation = status.name.generation;
                lines.push(format!("{id}: {role} {term}, commit {commit}, applied {applied}, {generation}"));
            }
        }
        lines
    }

    /// What happened since the last call, node by node.
    fn events(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, node) in self.cluster.nodes() {
            let events = node.take_events();
            let shown = events.into_iter().filter(|event| self.heartbeats || !event.contains("heartbeat"));
            lines.extend(shown.map(|event| format!("{id}: {event}")));
            if let Some(fault) = node.host.fault_latch().get() {
                lines.push(format!("{id}: the node stops: {fault}"));
            }
        }
        lines
    }

    /// Lets everything run that needs no time, then says what happened and who was answered.
    fn settle(&mut self) -> Vec<String> {
        self.runtime.block_on(async {
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
        });
        let mut lines = self.events();
        let clients = std::mem::take(&mut self.clients);
        let (done, waiting): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(_, task)| task.is_finished());
        self.clients = waiting;
        for (text, task) in done {
            let answer = self.runtime.block_on(task).expect("clients do not panic");
            lines.push(format!("{text} -> {answer}"));
        }
        lines
    }
}

fn nodes(numbers: &[&str]) -> Outcome<Vec<NodeId>> {
    let nodes = numbers.iter().map(|number| node(number)).collect::<Outcome<BTreeSet<_>>>()?;
    Ok(nodes.into_iter().collect())
}

fn node(number: &str) -> Outcome<NodeId> {
    Ok(NodeId(number.parse()?))
}

fn show(value: Option<bytes::Bytes>) -> String {
    value.map_or("nothing".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())
}
