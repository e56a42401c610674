//! One client connection: reads messages, has them executed, writes the replies, in order.
//!
//! One task for each connection, started by the listener. Always holds: memory grows with what was received, not with
//! what was claimed; a client's mistake closes its own connection only, with a logged reason; an idle connection keeps
//! one small buffer.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use base::Error;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::command;
use crate::compression::{self, Compressor};
use crate::dispatch::{self, Outcome};
use crate::message::{self, HEADER_BYTES, Header, MessageError, OP_COMPRESSED, OP_MSG, OP_QUERY, Request};
use crate::reply::Reply;
use crate::state::{Client, State, stop_wanted};

/// The buffer of an idle connection.
const BUFFER_BYTES: usize = 8 * 1024;
/// A larger buffer is given back once it is empty.
const BUFFER_BYTES_KEPT: usize = 32 * 1024;
/// A message is read in steps of at most this, so that a claimed length alone costs no memory.
const READ_STEP_BYTES: usize = 1024 * 1024;
/// What a client may send ahead while a command runs; more waits in the socket.
const READ_AHEAD_BYTES: usize = 256 * 1024;

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client closed it, or the node stops, or a fail point wants it.
    Orderly,
    /// The socket failed.
    Socket(io::Error),
    /// The client broke the protocol.
    Protocol(String),
}

/// A connection and what has been read from it.
pub(crate) struct Connection {
    state: Arc<State>,
    client: Arc<Client>,
    stream: TcpStream,
    buffer: BytesMut,
    stopping: watch::Receiver<bool>,
    last_request_id: i32,
}

/// How a request came, and so how its reply goes.
#[derive(Clone, Copy)]
struct Envelope {
    request_id: i32,
    compressor: Option<Compressor>,
}

impl Connection {
    /// A connection that was just accepted.
    pub(crate) fn new(state: Arc<State>, client: Arc<Client>, stream: TcpStream) -> Connection {
        let stopping = state.stopping();
        Connection { state, client, stream, buffer: BytesMut::new(), stopping, last_request_id: 0 }
    }

    /// Serves the client until it leaves.
    pub(crate) async fn serve(&mut self) -> End {
        loop {
            match self.read_message().await {
                Ok(Some(message)) => {
                    if let Err(end) = self.answer(message).await {
                        return end;
                    }
                }
                Ok(None) => return End::Orderly,
                Err(end) => return end,
            }
        }
    }

    /// The next whole message; `None` when the client has left or the node stops.
    async fn read_message(&mut self) -> Result<Option<Bytes>, End> {
        loop {
            let missing = match self.missing_bytes()? {
                0 => return Ok(Some(self.take_message()?)),
                missing => missing,
            };
            if self.buffer.is_empty() && *self.stopping.borrow() {
                return Ok(None);
            }
            if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_BYTES_KEPT {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(missing.clamp(BUFFER_BYTES, READ_STEP_BYTES));
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.buffer) => {
                    let count = read.map_err(End::Socket)?;
                    if count == 0 {
                        return if self.buffer.is_empty() { Ok(None) } else { Err(cut_off()) };
                    }
                    self.state.metrics.bytes_in.add(count as u64);
                }
                () = stop_wanted(&mut self.stopping) => return Ok(None),
            }
        }
    }

    /// How many bytes the next message still lacks; at least those of a header.
    fn missing_bytes(&self) -> Result<usize, End> {
        if self.buffer.len() < HEADER_BYTES {
            return Ok(HEADER_BYTES - self.buffer.len());
        }
        let header = Header::parse(&self.buffer).map_err(|error| End::Protocol(error.to_string()))?;
        Ok(header.length.saturating_sub(self.buffer.len()))
    }

    fn take_message(&mut self) -> Result<Bytes, End> {
        let header = Header::parse(&self.buffer).map_err(|error| End::Protocol(error.to_string()))?;
        self.state.metrics.requests.add(1);
        Ok(self.buffer.split_to(header.length).freeze())
    }

    async fn answer(&mut self, message: Bytes) -> Result<(), End> {
        let header = Header::parse(&message).map_err(|error| End::Protocol(error.to_string()))?;
        match header.opcode {
            OP_COMPRESSED => {
                let unpacked =
                    compression::unpack(&message).map_err(|error| End::Protocol(error.to_string()))?;
                drop(message);
                let inner = Bytes::from(unpacked.message);
                let header = Header::parse(&inner).map_err(|error| End::Protocol(error.to_string()))?;
                let envelope =
                    Envelope { request_id: header.request_id, compressor: Some(unpacked.compressor) };
                self.answer_plain(header, inner, envelope).await
            }
            _ => {
                let envelope = Envelope { request_id: header.request_id, compressor: None };
                self.answer_plain(header, message, envelope).await
            }
        }
    }

    async fn answer_plain(&mut self, header: Header, message: Bytes, envelope: Envelope) -> Result<(), End> {
        match header.opcode {
            OP_MSG => match message::parse_op_msg(&message) {
                Ok(request) => {
                    // The request holds slices of the message; nothing else needs the whole.
                    drop(message);
                    self.answer_op_msg(request, envelope).await
                }
                Err(MessageError::Refused(error)) => self.refuse(&error, envelope).await,
                Err(MessageError::Fatal(reason)) => Err(End::Protocol(reason)),
            },
            OP_QUERY => self.answer_op_query(&message, envelope).await,
            other => Err(End::Protocol(format!("opcode {other} is not a request"))),
        }
    }

    async fn answer_op_msg(&mut self, request: Request, envelope: Envelope) -> Result<(), End> {
        let mut response_to = envelope.request_id;
        loop {
            let reply = match self.execute(&request, "").await? {
                Outcome::Reply(reply) => reply,
                Outcome::Close => return Err(End::Orderly),
            };
            if request.more_to_come {
                return Ok(());
            }
            let streams = request.exhaust_allowed && reply.streams;
            let request_id = self.next_request_id();
            let mut bytes = message::finish_op_msg(reply.into_message(), request_id, response_to, streams);
            if let Some(compressor) = envelope.compressor.filter(|_| !is_handshake(&request)) {
                bytes = compression::pack(compressor, &bytes);
            }
            self.write(bytes).await?;
            if !streams {
                return Ok(());
            }
            // Each reply of a stream answers the one before it.
            response_to = request_id;
        }
    }

    /// A message that came whole but holds something wrong.
    async fn refuse(&mut self, error: &Error, envelope: Envelope) -> Result<(), End> {
        let reply = Reply::from_error(error, &[]).into_message();
        let request_id = self.next_request_id();
        self.write(message::finish_op_msg(reply, request_id, envelope.request_id, false)).await
    }

    /// Only the handshake may come this way.
    async fn answer_op_query(&mut self, message: &Bytes, envelope: Envelope) -> Result<(), End> {
        let (reply, failed) = match message::parse_op_query(message) {
            Ok(query) => match command::legacy_handshake(query) {
                Ok((database, request)) => match self.execute(&request, &database).await? {
                    Outcome::Reply(reply) => (reply, false),
                    Outcome::Close => return Err(End::Orderly),
                },
                Err(error) => (Reply::from_error(&error, &[]), true),
            },
            Err(MessageError::Refused(error)) => (Reply::from_error(&error, &[]), true),
            Err(MessageError::Fatal(reason)) => return Err(End::Protocol(reason)),
        };
        let request_id = self.next_request_id();
        let body = reply.into_body();
        self.write(message::encode_op_reply(&body, request_id, envelope.request_id, failed)).await
    }

    /// Runs a command, and watches meanwhile whether the client leaves: that interrupts it.
    async fn execute(&mut self, request: &Request, default_database: &str) -> Result<Outcome, End> {
        let Connection { state, client, stream, buffer, .. } = self;
        // Boxed: an idle connection must not keep room for the largest command's future.
        let running = Box::pin(dispatch::run(state, client, request, default_database));
        let watching = pin!(watch_for_departure(stream, buffer));
        let (mut running, mut watching) = (running, watching);
        let left = tokio::select! {
            biased;
            outcome = &mut running => return Ok(outcome),
            left = &mut watching => left,
        };
        client.interrupt();
        // A write that is under way ends by itself; its outcome is known to the session.
        drop(running.await);
        Err(left)
    }

    async fn write(&mut self, bytes: Vec<u8>) -> Result<(), End> {
        self.state.metrics.bytes_out.add(bytes.len() as u64);
        self.stream.write_all(&bytes).await.map_err(End::Socket)
    }

    fn next_request_id(&mut self) -> i32 {
        self.last_request_id = self.last_request_id.wrapping_add(1);
        self.last_request_id
    }
}

/// Reads ahead until the client leaves. Stops reading, and so waits for ever, once enough was sent ahead.
async fn watch_for_departure(stream: &mut TcpStream, buffer: &mut BytesMut) -> End {
    loop {
        if buffer.len() >= READ_AHEAD_BYTES {
            return std::future::pending().await;
        }
        buffer.reserve(BUFFER_BYTES);
        match stream.read_buf(buffer).await {
            Ok(0) => return End::Orderly,
            Ok(_) => {}
            Err(error) => return End::Socket(error),
        }
    }
}

/// Replies to the handshake and to authentication are never packed.
fn is_handshake(request: &Request) -> bool {
    let first = request.body.as_raw().iter().next_element();
    let name = first.map_or(&b""[..], |element| element.name);
    command::find(std::str::from_utf8(name).unwrap_or_default()).is_some_and(|spec| spec.name == "hello")
}

fn cut_off() -> End {
    End::Protocol("the client left in the middle of a message".to_owned())
}
