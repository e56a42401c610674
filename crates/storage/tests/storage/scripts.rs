//! Runs the scripts in `tests/scripts` against both implementations: one file of expected output for both.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use base::{Generation, LogIndex, ReplicaId, Term};
use goldenscript::{Argument, ArgumentConsumer, Command, Context, Runner};
use storage::{Direction, KeyRange, KvBatch, LogBatch, LogEntry, ReplicaLogState, ReplicaWrites, View};

use crate::support::{AnyLog, AnyStore, keyspace, state, writes};

type Output = Result<String, Box<dyn Error>>;

fn run_all(area: &str, mut runner: impl FnMut() -> Box<dyn FnMut(&Path)>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(area);
    let mut count = 0;
    for item in std::fs::read_dir(directory).expect("the scripts are there") {
        runner()(&item.expect("readable").path());
        count += 1;
    }
    assert!(count > 0, "no scripts found");
}

#[test]
fn store_scripts_pass_in_memory() {
    run_all("store", || {
        let mut runner = StoreRunner { store: AnyStore::memory(), views: BTreeMap::new() };
        Box::new(move |path| goldenscript::run(&mut runner, path).expect("the script runs"))
    });
}

#[test]
fn store_scripts_pass_on_disk() {
    run_all("store", || {
        let mut runner = StoreRunner { store: AnyStore::engine(), views: BTreeMap::new() };
        Box::new(move |path| goldenscript::run(&mut runner, path).expect("the script runs"))
    });
}

#[test]
fn raft_log_scripts_pass_in_memory() {
    run_all("raft_log", || {
        let mut runner = LogRunner { log: AnyLog::memory() };
        Box::new(move |path| goldenscript::run(&mut runner, path).expect("the script runs"))
    });
}

#[test]
fn raft_log_scripts_pass_on_disk() {
    run_all("raft_log", || {
        let mut runner = LogRunner { log: AnyLog::engine() };
        Box::new(move |path| goldenscript::run(&mut runner, path).expect("the script runs"))
    });
}

/// Commands of store scripts. Keyspaces are numbers.
struct StoreRunner {
    store: AnyStore,
    views: BTreeMap<String, Arc<dyn View>>,
}

impl Runner for StoreRunner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Output {
        let mut args = command.consume_args();
        let store = self.store.get();
        match command.name.as_str() {
            // create KEYSPACE
            "create" => store.create_keyspace(keyspace(args.next_pos().ok_or("keyspace")?.parse()?))?,
            // drop KEYSPACE
            "drop" => store.drop_keyspace(keyspace(args.next_pos().ok_or("keyspace")?.parse()?))?,
            "keyspaces" => {
                return Ok(store.keyspaces()?.iter().map(|name| format!("{name}\n")).collect());
            }
            // apply KEYSPACE INDEX KEY=VALUE... DELETED_KEY...
            "apply" => {
                let name = keyspace(args.next_pos().ok_or("keyspace")?.parse()?);
                let index = LogIndex(args.next_pos().ok_or("index")?.parse()?);
                let mut batch = KvBatch::default();
                for arg in args {
                    match arg {
                        Argument::KeyValue(key, value) => batch.put(key.clone(), value.clone()),
                        Argument::Positional(key) => batch.delete(key.clone()),
                        _ => return Err("unknown argument".into()),
                    }
                }
                store.apply(name, &batch, index)?;
            }
            // index KEYSPACE
            "index" => {
                let name = keyspace(args.next_pos().ok_or("keyspace")?.parse()?);
                return Ok(format!("applied {}", store.applied_index(name)?));
            }
            // durable KEYSPACE
            "durable" => {
                let name = keyspace(args.next_pos().ok_or("keyspace")?.parse()?);
                return Ok(format!("durable {}", store.durable_index(name)?));
            }
            // view NAME KEYSPACE
            "view" => {
                let view = args.next_pos().ok_or("view")?.to_owned();
                let name = keyspace(args.next_pos().ok_or("keyspace")?.parse()?);
                self.views.insert(view, store.view(name)?);
            }
            // close VIEW
            "close" => {
                self.views.remove(args.next_pos().ok_or("view")?).ok_or("no such view")?;
            }
            // get VIEW|KEYSPACE KEY...
            "get" => {
                let view = self.find_view(args.next_pos().ok_or("view")?)?;
                let mut out = String::new();
                while let Some(key) = args.next_pos() {
                    let value = view.get(key.as_bytes())?.map(|value| value.escape_ascii().to_string());
                    writeln!(out, "{key} => {}", value.unwrap_or("(none)".to_owned()))?;
                }
                return Ok(out);
            }
            // scan VIEW|KEYSPACE [prefix=P] [from=KEY] [to=KEY] [reverse=true] [limit=N]
            "scan" => {
                let view = self.find_view(args.next_pos().ok_or("view")?)?;
                let prefix: String = parse_key(&mut args, "prefix")?.unwrap_or_default();
                let mut range = KeyRange::prefix(prefix);
                if let Some(from) = parse_key::<String>(&mut args, "from")? {
                    range.start = from.into();
                }
                if let Some(to) = parse_key::<String>(&mut args, "to")? {
                    range.end = Some(to.into());
                }
                let reverse = parse_key(&mut args, "reverse")?.unwrap_or(false);
                let limit = parse_key(&mut args, "limit")?.unwrap_or(usize::MAX);
                args.reject_next()?;
                let direction = if reverse { Direction::Reverse } else { Direction::Forward };
                let mut out = String::new();
                for item in view.scan(range, direction).take(limit) {
                    let (key, value) = item?;
                    writeln!(out, "{} => {}", key.escape_ascii(), value.escape_ascii())?;
                }
                return Ok(out);
            }
            // view_index VIEW
            "view_index" => {
                let view = self.find_view(args.next_pos().ok_or("view")?)?;
                return Ok(format!("applied {}", view.applied_index()?));
            }
            "flush" => store.flush()?,
            // tables KEYSPACE
            "tables" => self.store.write_tables(keyspace(args.next_pos().ok_or("keyspace")?.parse()?))?,
            "reopen" => {
                self.views.clear();
                self.store.reopen()?;
            }
            name => return Err(format!("unknown command {name}").into()),
        }
        Ok(String::new())
    }
}

impl StoreRunner {
    fn find_view(&self, name: &str) -> Result<Arc<dyn View>, Box<dyn Error>> {
        match self.views.get(name) {
            Some(view) => Ok(view.clone()),
            None => Ok(self.store.get().view(keyspace(name.parse()?))?),
        }
    }
}

/// Commands of Raft log scripts. Replicas are numbers; an entry is written INDEX@TERM, with =DATA if it has any.
struct LogRunner {
    log: AnyLog,
}

impl Runner for LogRunner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Output {
        let mut args = command.consume_args();
        let log = self.log.get();
        match command.name.as_str() {
            // append REPLICA INDEX@TERM[=DATA]...
            "append" => {
                let replica = args.next_pos().ok_or("replica")?.parse()?;
                let mut entries = Vec::new();
                for arg in args {
                    let (position, data) = match arg {
                        Argument::KeyValue(position, data) => (position, data.clone()),
                        Argument::Positional(position) => (position, String::new()),
                        _ => return Err("unknown argument".into()),
                    };
                    let (index, term) = parse_position(position)?;
                    entries.push(LogEntry { index, term, kind: 0, data: data.into() });
                }
                log.write(writes(replica, ReplicaWrites { entries, ..ReplicaWrites::default() }))?;
            }
            // state REPLICA [term=T] [vote=R] [commit=I] [generation=G] [truncated=I@T] [clean=true] [compact=I]
            "state" => {
                let replica = args.next_pos().ok_or("replica")?.parse()?;
                let mut new = log.state(ReplicaId(replica))?.unwrap_or_else(|| state(0, 0));
                new.term = parse_key(&mut args, "term")?.map_or(new.term, Term);
                new.vote = parse_key(&mut args, "vote")?.map(ReplicaId).or(new.vote);
                new.commit = parse_key(&mut args, "commit")?.map_or(new.commit, LogIndex);
                new.generation = parse_key(&mut args, "generation")?.map_or(new.generation, Generation);
                if let Some(position) = parse_key::<String>(&mut args, "truncated")? {
                    (new.truncated_index, new.truncated_term) = parse_position(&position)?;
                }
                let clean = parse_key(&mut args, "clean")?.unwrap_or(false);
                let compact_to = parse_key(&mut args, "compact")?.map(LogIndex);
                args.reject_next()?;
                let entries = Vec::new();
                log.write(writes(replica, ReplicaWrites { clean, entries, state: Some(new), compact_to }))?;
            }
            // clean REPLICA
            "clean" => {
                let replica = args.next_pos().ok_or("replica")?.parse()?;
                log.write(writes(replica, ReplicaWrites { clean: true, ..ReplicaWrites::default() }))?;
            }
            // show REPLICA
            "show" => return show(&log.state(ReplicaId(args.next_pos().ok_or("replica")?.parse()?))?),
            // bounds REPLICA
            "bounds" => {
                let bounds = log.bounds(ReplicaId(args.next_pos().ok_or("replica")?.parse()?))?;
                return Ok(bounds.map_or("empty".to_owned(), |(first, last)| format!("{first} to {last}")));
            }
            // entries REPLICA LOW HIGH [bytes=N]
            "entries" => {
                let replica = ReplicaId(args.next_pos().ok_or("replica")?.parse()?);
                let low = LogIndex(args.next_pos().ok_or("low")?.parse()?);
                let high = LogIndex(args.next_pos().ok_or("high")?.parse()?);
                let bytes_max = parse_key(&mut args, "bytes")?.unwrap_or(usize::MAX);
                args.reject_next()?;
                let mut out = String::new();
                for entry in log.entries(replica, low, high, bytes_max)? {
                    writeln!(out, "{}@{} {}", entry.index, entry.term, entry.data.escape_ascii())?;
                }
                return Ok(out);
            }
            "replicas" => {
                return Ok(log.replicas()?.iter().map(|replica| format!("{replica}\n")).collect());
            }
            // node KEY=VALUE...
            "node" => {
                let mut node = Vec::new();
                while let Some((key, value)) = args.next_key() {
                    node.push((key.to_owned(), value.to_owned().into()));
                }
                log.write(LogBatch { replicas: Vec::new(), node })?;
            }
            // node_get KEY
            "node_get" => {
                let value = log.node_value(args.next_pos().ok_or("key")?)?;
                return Ok(value.map_or("(none)".to_owned(), |value| value.escape_ascii().to_string()));
            }
            "reopen" => self.log.reopen()?,
            name => return Err(format!("unknown command {name}").into()),
        }
        Ok(String::new())
    }
}

/// Takes the value of `key=` out of the arguments.
fn parse_key<T: std::str::FromStr<Err: Error + 'static>>(
    args: &mut ArgumentConsumer<'_>,
    key: &str,
) -> Result<Option<T>, Box<dyn Error>> {
    Ok(args.take_key(key).map(str::parse).transpose()?)
}

fn parse_position(text: &str) -> Result<(LogIndex, Term), Box<dyn Error>> {
    let (index, term) = text.split_once('@').ok_or("an entry is INDEX@TERM")?;
    Ok((LogIndex(index.parse()?), Term(term.parse()?)))
}

fn show(state: &Option<ReplicaLogState>) -> Output {
    let Some(state) = state else { return Ok("(none)".to_owned()) };
    Ok(format!(
        "shard {} term {} vote {} commit {} generation {} truncated {}@{} membership {}",
        state.shard,
        state.term,
        state.vote.map_or("(none)".to_owned(), |vote| vote.to_string()),
        state.commit,
        state.generation,
        state.truncated_index,
        state.truncated_term,
        state.membership.escape_ascii()
    ))
}
