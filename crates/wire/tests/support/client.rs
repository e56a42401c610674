//! A client that frames by hand: what a driver would never send can be sent with it.

use std::io;

use bson::Document;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Frames a message: header, then `payload`.
pub(crate) fn frame(request_id: i32, opcode: i32, payload: &[u8]) -> Vec<u8> {
    let length = i32::try_from(payload.len() + 16).expect("test messages are short");
    let mut message = Vec::new();
    for number in [length, request_id, 0, opcode] {
        message.extend_from_slice(&number.to_le_bytes());
    }
    message.extend_from_slice(payload);
    message
}

/// The payload of an OP_MSG: flags, a body, document sequences.
pub(crate) fn op_msg(flags: u32, body: &Document, sequences: &[(String, Vec<Document>)]) -> Vec<u8> {
    let mut payload = flags.to_le_bytes().to_vec();
    payload.push(0);
    payload.extend_from_slice(&encode(body));
    for (name, documents) in sequences {
        payload.extend_from_slice(&sequence(name, documents));
    }
    payload
}

/// A section with a document sequence.
pub(crate) fn sequence(name: &str, documents: &[Document]) -> Vec<u8> {
    let mut content = name.as_bytes().to_vec();
    content.push(0);
    documents.iter().for_each(|document| content.extend_from_slice(&encode(document)));
    let size = i32::try_from(content.len() + 4).expect("test messages are short");
    [&[1], size.to_le_bytes().as_slice(), &content].concat()
}

/// The payload of an OP_QUERY.
pub(crate) fn op_query(namespace: &str, query: &Document) -> Vec<u8> {
    let numbers = [0_i32.to_le_bytes(), (-1_i32).to_le_bytes()].concat();
    [&[0; 4], namespace.as_bytes(), &[0], &numbers, &encode(query)].concat()
}

/// A document's bytes.
pub(crate) fn encode(document: &Document) -> Vec<u8> {
    bson::serialize_to_vec(document).expect("test documents encode")
}

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
}

/// A reply as it came.
pub(crate) struct Reply {
    pub(crate) opcode: i32,
    pub(crate) response_to: i32,
    pub(crate) flags: u32,
    pub(crate) body: Document,
}

impl Client {
    pub(crate) async fn connect(address: std::net::SocketAddr) -> io::Result<Client> {
        Ok(Client { stream: TcpStream::connect(address).await? })
    }

    pub(crate) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message).await
    }

    /// The next reply; `None` when the server closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<Reply> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).await.ok()?;
        let number =
            |at: usize| i32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes of sixteen"));
        let mut payload = vec![0; usize::try_from(number(0)).expect("a length") - 16];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Reply::read(number(12), number(8), &payload))
    }
}

impl Reply {
    fn read(opcode: i32, response_to: i32, payload: &[u8]) -> Reply {
        if opcode == 2012 {
            let inner = i32::from_le_bytes(payload[0..4].try_into().expect("four bytes"));
            let packed = &payload[9..];
            let unpacked = match payload[8] {
                0 => packed.to_vec(),
                1 => snap::raw::Decoder::new().decompress_vec(packed).expect("valid snappy"),
                2 => {
                    let mut out = Vec::new();
                    io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed), &mut out)
                        .expect("valid zlib");
                    out
                }
                _ => zstd::decode_all(packed).expect("valid zstd"),
            };
            return Reply { opcode, ..Reply::read(inner, response_to, &unpacked) };
        }
        let flags = u32::from_le_bytes(payload[0..4].try_into().expect("four bytes"));
        let body_at = if opcode == 1 { 20 } else { 5 };
        let body = bson::deserialize_from_slice(&payload[body_at..]).expect("a reply is valid BSON");
        Reply { opcode, response_to, flags, body }
    }
}
