//! What must hold of messages for any bytes whatsoever. The tests of `wire` run the same functions over `fuzz/corpus`.
//!
//! Input of `framing`: a whole message, or what claims to be one. Input of `decompression`: an OP_COMPRESSED message.

use bytes::Bytes;
use wire::compression;
use wire::message::{Header, parse_op_msg, parse_op_query};

/// Runs the check of one fuzz target. Panics when something does not hold.
pub(crate) fn run(target: &str, data: &[u8]) {
    match target {
        "framing" => framing(data),
        "decompression" => decompression(data),
        _ => panic!("there is no fuzz target {target}"),
    }
}

/// What is taken from a message are parts of it, whole documents each.
fn framing(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    if let Ok(header) = Header::parse(data) {
        assert!((16..=base::limits::MESSAGE_BYTES_MAX).contains(&header.length));
    }
    if let Ok(request) = parse_op_msg(&message) {
        let documents = request.sequences.iter().flat_map(|sequence| &sequence.documents);
        let total: usize = documents.map(|document| document.bytes().len()).sum();
        assert!(total + request.body.bytes().len() <= data.len(), "documents overlap");
    }
    if let Ok(query) = parse_op_query(&message) {
        assert!(query.query.bytes().len() <= data.len());
    }
}

/// What is unpacked has the size that was claimed.
fn decompression(data: &[u8]) {
    if let Ok(unpacked) = compression::unpack(data) {
        let header =
            Header { length: unpacked.message.len(), ..Header::parse(data).expect("it was unpacked") };
        let claimed = data.get(20..24).and_then(|bytes| bytes.first_chunk()).expect("it was unpacked");
        assert_eq!(header.length, 16 + usize::try_from(i32::from_le_bytes(*claimed)).expect("not negative"));
    }
}
