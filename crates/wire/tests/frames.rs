//! Frames without a connection: what a message's bytes are taken for, or why they are refused.
//!
//! `header` reads a header. `message` puts an OP_MSG together from its parts and reads it: `flags`, then parts in order:
//! `body DOC`, `sequence NAME ARRAY`, `bytes HEX...`; `checksum` is `good` or `bad`, `cut` takes bytes off the end.
//! `query` does the same for an OP_QUERY. `packed` unpacks an OP_COMPRESSED message: `by` a compressor's number, with
//! `claimed` as its size and `opcode` as its contents, the data being either `text` compressed or `data` in hex.

use std::error::Error;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use wire::compression;
use wire::message::{Header, MessageError, parse_op_msg, parse_op_query};

use crate::support::client::{encode, frame, op_query, sequence};
use crate::support::{run_scripts, show_buf, show_bufs, tree, trees};

#[test]
fn frames_are_read_or_refused_as_their_scripts_say() {
    run_scripts("frame", || Runner);
}

struct Runner;

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut arguments = command.consume_args();
        let outcome = match command.name.as_str() {
            "header" => header(&mut arguments)?,
            "message" => message(&mut arguments)?,
            "query" => query(&mut arguments)?,
            "packed" => packed(&mut arguments)?,
            other => return Err(format!("unknown command {other}").into()),
        };
        arguments.reject_next()?;
        Ok(outcome.unwrap_or_else(|error| match error {
            MessageError::Fatal(reason) => format!("closes: {reason}"),
            MessageError::Refused(error) => format!("answers: {error}"),
        }))
    }
}

type Outcome = Result<Result<String, MessageError>, Box<dyn Error>>;

fn header(arguments: &mut ArgumentConsumer<'_>) -> Outcome {
    let number = |text: Option<&str>| text.unwrap_or("0").parse::<i32>();
    let length = number(arguments.take_key("length"))?;
    let opcode = number(arguments.take_key("opcode"))?;
    let bytes: Vec<u8> = [length, 1, 2, opcode].into_iter().flat_map(i32::to_le_bytes).collect();
    let shown = match arguments.take_key("bytes") {
        Some(count) => bytes.get(..count.parse()?).unwrap_or_default(),
        None => &bytes,
    };
    Ok(Header::parse(shown).map(|header| format!("length {} opcode {}", header.length, header.opcode)))
}

fn message(arguments: &mut ArgumentConsumer<'_>) -> Outcome {
    let flags: u32 = arguments.take_key("flags").unwrap_or("0").parse()?;
    let checksum = arguments.take_key("checksum");
    let cut: usize = arguments.take_key("cut").unwrap_or("0").parse()?;
    let mut payload = flags.to_le_bytes().to_vec();
    while let Some(part) = arguments.next_pos() {
        payload.extend_from_slice(&section(part)?);
    }
    if checksum.is_some() {
        payload.extend_from_slice(&[0; 4]);
    }
    let mut bytes = frame(1, 2013, &payload);
    if let Some(kind) = checksum {
        let split = bytes.len() - 4;
        let sum = crc32c::crc32c(&bytes[..split]);
        let sum = if kind == "good" { sum } else { !sum };
        bytes[split..].copy_from_slice(&sum.to_le_bytes());
    }
    bytes.truncate(bytes.len() - cut);
    Ok(parse_op_msg(&Bytes::from(bytes)).map(|request| {
        let mut lines = vec![show_buf(&request.body)];
        for sequence in &request.sequences {
            lines.push(format!("{}: {}", sequence.name, show_bufs(&sequence.documents)));
        }
        if request.more_to_come {
            lines.push("moreToCome".to_owned());
        }
        if request.exhaust_allowed {
            lines.push("exhaustAllowed".to_owned());
        }
        lines.join("\n")
    }))
}

/// One part of an OP_MSG.
fn section(part: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let (kind, rest) = part.split_once(' ').ok_or("a part is a word and more")?;
    Ok(match kind {
        "body" => [&[0], encode(&tree(rest)?).as_slice()].concat(),
        "sequence" => {
            let (name, documents) = rest.split_once(' ').ok_or("a name and documents")?;
            sequence(name, &trees(documents)?)
        }
        "bytes" => hexadecimal(rest)?,
        other => return Err(format!("unknown part {other}").into()),
    })
}

fn query(arguments: &mut ArgumentConsumer<'_>) -> Outcome {
    let cut: usize = arguments.take_key("cut").unwrap_or("0").parse()?;
    let namespace = arguments.next_pos().ok_or("a namespace")?;
    let payload = op_query(namespace, &tree(arguments.next_pos().ok_or("a query")?)?);
    let mut bytes = frame(1, 2004, &payload);
    bytes.truncate(bytes.len() - cut);
    let parsed = parse_op_query(&Bytes::from(bytes));
    Ok(parsed.map(|query| format!("{} {}", query.namespace, show_buf(&query.query))))
}

fn packed(arguments: &mut ArgumentConsumer<'_>) -> Outcome {
    let by: u8 = arguments.take_key("by").unwrap_or("1").parse()?;
    let opcode: i32 = arguments.take_key("opcode").unwrap_or("2013").parse()?;
    let text = arguments.take_key("text").unwrap_or_default();
    let data = match arguments.take_key("data") {
        Some(data) => hexadecimal(data)?,
        None => compress(by, text.as_bytes())?,
    };
    let claimed: i32 = match arguments.take_key("claimed") {
        Some(claimed) => claimed.parse()?,
        None => i32::try_from(text.len())?,
    };
    let payload = [&opcode.to_le_bytes()[..], &claimed.to_le_bytes(), &[by], &data].concat();
    Ok(compression::unpack(&frame(1, 2012, &payload)).map(|unpacked| {
        let text = String::from_utf8_lossy(&unpacked.message[16..]).into_owned();
        format!("{} {text:?}", unpacked.compressor.name())
    }))
}

fn compress(by: u8, text: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(match by {
        1 => snap::raw::Encoder::new().compress_vec(text)?,
        2 => {
            let mut out = Vec::new();
            let level = flate2::Compression::default();
            std::io::Read::read_to_end(&mut flate2::read::ZlibEncoder::new(text, level), &mut out)?;
            out
        }
        3 => zstd::encode_all(text, 0)?,
        _ => text.to_vec(),
    })
}

fn hexadecimal(text: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    text.split_whitespace().map(|byte| Ok(u8::from_str_radix(byte, 16)?)).collect()
}
