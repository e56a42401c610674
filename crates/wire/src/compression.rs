//! OP_COMPRESSED: unpacking requests and packing replies with snappy, zlib or zstd.
//!
//! Called by the connection task. Always holds: a claimed size is checked against the message limit before anything
//! is unpacked, memory grows with what actually comes out, and a result of another size than claimed is refused.

use std::io::Read;

use base::limits::MESSAGE_BYTES_MAX;

use crate::message::{HEADER_BYTES, Header, MessageError, OP_COMPRESSED, i32_at};

/// Largest window a zstd frame may ask for, as a power of two: above it, unpacking would need more memory than the
/// largest message.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// zlib's and zstd's middle setting: replies are packed while a client waits.
const ZLIB_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// A compressor of the wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressor {
    /// No compression.
    Noop,
    /// Snappy, block format.
    Snappy,
    /// zlib.
    Zlib,
    /// Zstandard.
    Zstd,
}

impl Compressor {
    /// What a client may ask for in its hello.
    pub(crate) const NEGOTIABLE: [Compressor; 3] = [Compressor::Snappy, Compressor::Zlib, Compressor::Zstd];

    /// Its name in the handshake.
    pub fn name(self) -> &'static str {
        match self {
            Compressor::Noop => "noop",
            Compressor::Snappy => "snappy",
            Compressor::Zlib => "zlib",
            Compressor::Zstd => "zstd",
        }
    }

    fn from_id(id: u8) -> Option<Compressor> {
        match id {
            0 => Some(Compressor::Noop),
            1 => Some(Compressor::Snappy),
            2 => Some(Compressor::Zlib),
            3 => Some(Compressor::Zstd),
            _ => None,
        }
    }

    fn id(self) -> u8 {
        match self {
            Compressor::Noop => 0,
            Compressor::Snappy => 1,
            Compressor::Zlib => 2,
            Compressor::Zstd => 3,
        }
    }
}

/// A message that was packed in an OP_COMPRESSED one.
#[derive(Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// What it was packed with; the reply is packed with the same.
    pub compressor: Compressor,
    /// The whole message, with a header of its own.
    pub message: Vec<u8>,
}

/// Unpacks an OP_COMPRESSED message, header included. Fails on unknown compressors, on nested compression, and on
/// sizes that are too large or not what was claimed.
pub fn unpack(message: &[u8]) -> Result<Unpacked, MessageError> {
    let header = Header::parse(message)?;
    let truncated = || MessageError::fatal("OP_COMPRESSED message is too short");
    let opcode = i32_at(message, HEADER_BYTES).ok_or_else(truncated)?;
    let claimed = i32_at(message, HEADER_BYTES + 4).ok_or_else(truncated)?;
    let id = *message.get(HEADER_BYTES + 8).ok_or_else(truncated)?;
    let packed = message.get(HEADER_BYTES + 9..).ok_or_else(truncated)?;
    if opcode == OP_COMPRESSED {
        return Err(MessageError::fatal("OP_COMPRESSED message contains another one"));
    }
    let claimed = usize::try_from(claimed)
        .ok()
        .filter(|size| *size <= MESSAGE_BYTES_MAX - HEADER_BYTES)
        .ok_or_else(|| MessageError::fatal(format!("claimed uncompressed size {claimed} is out of range")))?;
    let compressor =
        Compressor::from_id(id).ok_or_else(|| MessageError::fatal(format!("unknown compressor id {id}")))?;
    let body = decompress(compressor, packed, claimed)?;
    if body.len() != claimed {
        return Err(MessageError::fatal(format!(
            "claimed uncompressed size {claimed} differs from the actual one, {}",
            body.len()
        )));
    }
    let inner = Header { length: HEADER_BYTES + claimed, opcode, ..header };
    let mut message = Vec::with_capacity(inner.length);
    message.extend_from_slice(&inner.encode());
    message.extend_from_slice(&body);
    Ok(Unpacked { compressor, message })
}

/// Packs a finished message, header included.
pub(crate) fn pack(compressor: Compressor, message: &[u8]) -> Vec<u8> {
    let header = Header::parse(message).expect("the server's own messages have a valid header");
    let body = message.get(HEADER_BYTES..).unwrap_or_default();
    let compressed = compress(compressor, body);
    let outer = Header { length: HEADER_BYTES + 9 + compressed.len(), opcode: OP_COMPRESSED, ..header };
    let mut packed = Vec::with_capacity(outer.length);
    packed.extend_from_slice(&outer.encode());
    packed.extend_from_slice(&header.opcode.to_le_bytes());
    packed.extend_from_slice(&i32::try_from(body.len()).expect("a reply is below 2 GiB").to_le_bytes());
    packed.push(compressor.id());
    packed.extend_from_slice(&compressed);
    packed
}

fn decompress(compressor: Compressor, packed: &[u8], claimed: usize) -> Result<Vec<u8>, MessageError> {
    let failed =
        |error: &dyn std::fmt::Display| MessageError::fatal(format!("{} data: {error}", compressor.name()));
    match compressor {
        Compressor::Noop => Ok(packed.to_vec()),
        Compressor::Snappy => {
            // Snappy writes the size in front, and the decoder allocates by it.
            let stated = snap::raw::decompress_len(packed).map_err(|error| failed(&error))?;
            if stated != claimed {
                return Err(failed(&format!("states {stated} bytes, the message claims {claimed}")));
            }
            snap::raw::Decoder::new().decompress_vec(packed).map_err(|error| failed(&error))
        }
        Compressor::Zlib => {
            read_up_to(flate2::read::ZlibDecoder::new(packed), claimed).map_err(|error| failed(&error))
        }
        Compressor::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(packed).map_err(|error| failed(&error))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|error| failed(&error))?;
            read_up_to(decoder, claimed).map_err(|error| failed(&error))
        }
    }
}

/// Reads at most one byte more than `claimed`, so that a longer stream shows as such without being held.
fn read_up_to(source: impl Read, claimed: usize) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    source.take(claimed as u64 + 1).read_to_end(&mut out)?;
    Ok(out)
}

fn compress(compressor: Compressor, body: &[u8]) -> Vec<u8> {
    let infallible = "compressing memory into memory does not fail";
    match compressor {
        Compressor::Noop => body.to_vec(),
        Compressor::Snappy => snap::raw::Encoder::new().compress_vec(body).expect(infallible),
        Compressor::Zlib => {
            let level = flate2::Compression::new(ZLIB_LEVEL);
            let mut out = Vec::new();
            flate2::read::ZlibEncoder::new(body, level).read_to_end(&mut out).expect(infallible);
            out
        }
        Compressor::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL).expect(infallible),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::OP_MSG;

    const ALL: [Compressor; 4] = [Compressor::Noop, Compressor::Snappy, Compressor::Zlib, Compressor::Zstd];

    fn message(body: &[u8]) -> Vec<u8> {
        let header =
            Header { length: HEADER_BYTES + body.len(), request_id: 7, response_to: 9, opcode: OP_MSG };
        [&header.encode(), body].concat()
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same_message() {
        let message = message(&b"the same words again and again ".repeat(100));
        for compressor in ALL {
            let packed = pack(compressor, &message);
            assert_eq!(
                unpack(&packed),
                Ok(Unpacked { compressor, message: message.clone() }),
                "{compressor:?}"
            );
        }
    }

    #[test]
    fn a_claimed_size_that_differs_from_the_actual_one_is_refused() {
        for compressor in ALL {
            for wrong_by in [-1, 1, 1_000] {
                let mut packed = pack(compressor, &message(&[7; 500]));
                packed[20..24].copy_from_slice(&(500_i32 + wrong_by).to_le_bytes());
                assert!(unpack(&packed).is_err(), "{compressor:?} {wrong_by}");
            }
        }
    }

    #[test]
    fn sizes_beyond_the_message_limit_are_refused_before_unpacking() {
        for claimed in [-1, i32::MAX, 48_000_000] {
            let mut packed = pack(Compressor::Zstd, &message(&[7; 500]));
            packed[20..24].copy_from_slice(&i32::to_le_bytes(claimed));
            let error = unpack(&packed).expect_err("out of range");
            assert!(error.to_string().contains("out of range"), "{error}");
        }
    }
}
