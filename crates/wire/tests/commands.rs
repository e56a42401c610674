//! Commands over a real connection: what reaches the router, and what comes back.
//!
//! `send` sends a command (to `test`, unless it says otherwise) and prints what the router was asked, then the reply.
//! Named arguments are document sequences, but for `flags` (moreToCome, exhaustAllowed), `packed` (a compressor) and
//! `by` (`query` for the legacy form). `documents` sets what cursors return, `fail` the router's next error, `full` and
//! `room` the state of the disk, `connect` opens a connection in place of the last
//! one, `crowd` beside it, `receive` waits for one more reply, `raw` sends
//! bytes as they are.

use std::error::Error;

use bson::{Bson, Document};
use document::DocBuf;
use goldenscript::{Command, Context};

use crate::support::client::{Client, Reply, encode, frame, op_msg, op_query};
use crate::support::node::Node;
use crate::support::{run_scripts, show, tree, trees};

#[test]
fn commands_are_answered_as_their_scripts_say() {
    run_scripts("command", Runner::start);
}

#[test]
fn connections_behave_as_their_scripts_say() {
    run_scripts("connection", Runner::start);
}

#[test]
fn a_stopping_node_ends_idle_connections_and_wakes_waiting_hellos() {
    let mut runner = Runner::start();
    let waiting = runner.hello_that_waits();
    let (runtime, state) = (&runner.node.runtime, runner.node.state.clone());
    let client = runner.client.as_mut().expect("connected");
    runtime.block_on(async {
        client.send(&waiting).await.expect("sends");
        // The hello is under way once a second connection has been answered.
        let mut other = Client::connect(runner.node.address).await.expect("connects");
        other
            .send(&frame(1, 2013, &op_msg(0, &bson::doc! { "ping": 1, "$db": "admin" }, &[])))
            .await
            .expect("sends");
        other.receive().await.expect("answered");
        state.stop();
        let reply = client.receive().await.expect("a hello is answered at the end");
        assert_eq!(reply.body.get_i32("code").ok(), Some(91));
        assert!(other.receive().await.is_none(), "an idle connection is closed");
    });
}

struct Runner {
    node: Node,
    client: Option<Client>,
    /// Connections that stay open beside it.
    crowd: Vec<Client>,
    last_request_id: i32,
}

impl Runner {
    fn start() -> Runner {
        let settings = wire::Settings { connections_max: 3, test_commands: true };
        let mut runner =
            Runner { node: Node::start(settings), client: None, crowd: Vec::new(), last_request_id: 0 };
        runner.connect().expect("connects");
        runner
    }

    fn connect(&mut self) -> Result<(), Box<dyn Error>> {
        self.client = Some(self.node.runtime.block_on(Client::connect(self.node.address))?);
        Ok(())
    }

    /// A hello that waits for longer than any test.
    fn hello_that_waits(&mut self) -> Vec<u8> {
        let reply =
            self.exchange(&frame(1, 2013, &op_msg(0, &bson::doc! { "hello": 1, "$db": "admin" }, &[])));
        let version = reply.expect("answered").body.get_document("topologyVersion").expect("there").clone();
        let hello = bson::doc! {
            "hello": 1, "topologyVersion": version, "maxAwaitTimeMS": 600_000, "$db": "admin",
        };
        frame(2, 2013, &op_msg(0, &hello, &[]))
    }

    fn exchange(&mut self, message: &[u8]) -> Option<Reply> {
        let client = self.client.as_mut().expect("connected");
        self.node.runtime.block_on(async {
            client.send(message).await.ok()?;
            client.receive().await
        })
    }

    fn receive(&mut self) -> String {
        let client = self.client.as_mut().expect("connected");
        let reply = self.node.runtime.block_on(client.receive());
        self.report(reply)
    }

    fn send(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        let mut arguments = command.consume_args();
        let flags = match arguments.take_key("flags") {
            None => 0,
            Some("moreToCome") => 2,
            Some("exhaustAllowed") => 1 << 16,
            Some(other) => other.parse()?,
        };
        let packed = arguments.take_key("packed").map(str::to_owned);
        let legacy = arguments.take_key("by") == Some("query");
        let mut body = tree(arguments.next_pos().ok_or("a command")?)?;
        if !body.contains_key("$db") && !legacy {
            body.insert("$db", "test");
        }
        let mut sequences = Vec::new();
        while let Some((name, documents)) = arguments.next_key() {
            sequences.push((name.to_owned(), trees(documents)?));
        }
        arguments.reject_next()?;
        self.last_request_id += 1;
        let message = match (legacy, packed) {
            (true, _) => frame(self.last_request_id, 2004, &op_query("admin.$cmd", &body)),
            (false, None) => frame(self.last_request_id, 2013, &op_msg(flags, &body, &sequences)),
            (false, Some(compressor)) => {
                let payload = op_msg(flags, &body, &sequences);
                frame(self.last_request_id, 2012, &packed_payload(&compressor, &payload)?)
            }
        };
        if flags & 2 != 0 {
            let client = self.client.as_mut().expect("connected");
            self.node.runtime.block_on(client.send(&message))?;
            // No reply comes; the next command's answer shows that this one has run.
            self.last_request_id += 1;
            let ping = op_msg(0, &bson::doc! { "ping": 1, "$db": "test" }, &[]);
            let reply = self.exchange(&frame(self.last_request_id, 2013, &ping));
            return Ok(self.report(reply));
        }
        let reply = self.exchange(&message);
        Ok(self.report(reply))
    }

    /// What the router was asked, then the reply.
    fn report(&mut self, reply: Option<Reply>) -> String {
        let mut lines: Vec<String> = self.node.recorder.asked.lock().drain(..).collect();
        lines.iter_mut().for_each(|line| line.insert_str(0, "router: "));
        match reply {
            None => lines.push("closed".to_owned()),
            Some(mut reply) => {
                hide_what_differs(&mut reply.body);
                let mut kind = match reply.opcode {
                    1 => "OP_REPLY ",
                    2012 => "OP_COMPRESSED ",
                    _ => "",
                }
                .to_owned();
                if reply.opcode != 1 && reply.flags & 2 != 0 {
                    kind.push_str("moreToCome ");
                }
                let stray = reply.response_to != self.last_request_id;
                let stray = if stray && self.last_request_id > 0 { "to another message " } else { "" };
                lines.push(format!("{kind}{stray}{}", show(&reply.body)));
            }
        }
        lines.join("\n")
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut arguments = command.consume_args();
        match command.name.as_str() {
            "send" => self.send(command),
            "receive" => Ok(self.receive()),
            "connect" => self.connect().map(|()| String::new()),
            "crowd" => {
                self.crowd.extend(self.client.take());
                self.connect().map(|()| String::new())
            }
            "documents" => {
                let documents = trees(arguments.next_pos().ok_or("an array")?)?;
                let documents = documents.iter().map(DocBuf::encode).collect::<Result<_, _>>()?;
                *self.node.recorder.documents.lock() = documents;
                Ok(String::new())
            }
            "fail" => {
                let code = base::Code(arguments.next_pos().ok_or("a code")?.parse()?);
                let message = arguments.next_pos().ok_or("a message")?;
                *self.node.recorder.failure.lock() = Some(base::Error::new(code, message));
                Ok(String::new())
            }
            "raw" => {
                let mut message = Vec::new();
                while let Some(word) = arguments.next_pos() {
                    message.extend_from_slice(&part(word)?);
                }
                let reply = self.exchange(&message);
                Ok(self.report(reply))
            }
            other => Err(format!("unknown command {other}").into()),
        }
    }
}

/// One part of raw bytes: a decimal number as 32 bits, a document, or text in quotes of its own.
fn part(word: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    if word.starts_with('{') {
        return Ok(encode(&tree(word)?));
    }
    if let Some(hexadecimal) = word.strip_prefix("0x") {
        return Ok(vec![u8::from_str_radix(hexadecimal, 16)?]);
    }
    Ok(word.parse::<i32>()?.to_le_bytes().to_vec())
}

fn packed_payload(compressor: &str, payload: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let (id, packed) = match compressor {
        "snappy" => (1, snap::raw::Encoder::new().compress_vec(payload)?),
        "zlib" => {
            let mut out = Vec::new();
            let level = flate2::Compression::default();
            std::io::Read::read_to_end(&mut flate2::read::ZlibEncoder::new(payload, level), &mut out)?;
            (2, out)
        }
        "zstd" => (3, zstd::encode_all(payload, 0)?),
        other => return Err(format!("unknown compressor {other}").into()),
    };
    let claimed = i32::try_from(payload.len())?;
    Ok([&2013_i32.to_le_bytes()[..], &claimed.to_le_bytes(), &[id], &packed].concat())
}

/// Replaces values that differ from run to run.
fn hide_what_differs(body: &mut Document) {
    for name in ["you", "pid", "uptime", "metrics", "network", "psdb"] {
        if body.contains_key(name) {
            body.insert(name, "...");
        }
    }
    if let Some(Bson::Document(version)) = body.get_mut("topologyVersion") {
        version.insert("processId", "...");
    }
}
