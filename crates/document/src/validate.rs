//! Validation of BSON bytes from a client, before anything reads them.
//!
//! Called by `wire` for every message and by whoever takes documents from outside (`import`, the fuzz targets). One pass
//! over the bytes, without recursion and, up to a depth that real documents have, without an allocation.
//!
//! Always holds: of bytes that pass, every length is exact, every string is UTF-8 and ends with NUL, every type is known,
//! and documents nest no deeper than the limit; `RawDoc` reads all of them.

use base::{Code, Error, Result, limits};
use bytes::Bytes;
use smallvec::SmallVec;

use crate::value::DocBuf;

/// Checks a whole document: exactly `bytes`, nested at most `limits::NESTING_MAX` deep. `InvalidBSON` says what is
/// wrong and where; too deep nesting is `Overflow`.
pub fn validate(bytes: &[u8]) -> Result<()> {
    validate_nested(bytes, limits::NESTING_MAX)
}

/// As [`validate`], with another limit: a command that carries documents nests deeper than they do.
pub fn validate_nested(bytes: &[u8], nesting_max: usize) -> Result<()> {
    Validator { bytes, position: 0, open: SmallVec::new(), nesting_max }.run()
}

/// Checks the bytes and takes them as a document.
pub fn into_document(bytes: Bytes) -> Result<DocBuf> {
    validate(&bytes)?;
    Ok(DocBuf::from_validated(bytes))
}

/// A document that has begun and not ended.
struct Open {
    /// Where its closing NUL must be.
    last: usize,
    /// Code with scope ends with the scope: where that must be.
    code_end: Option<usize>,
}

struct Validator<'a> {
    bytes: &'a [u8],
    position: usize,
    open: SmallVec<[Open; 16]>,
    nesting_max: usize,
}

impl Validator<'_> {
    fn run(mut self) -> Result<()> {
        self.begin(None)?;
        if self.open.first().is_some_and(|open| open.last + 1 != self.bytes.len()) {
            return Err(self.invalid("the document's length is not the length of its bytes"));
        }
        while let Some(open) = self.open.last() {
            let (last, code_end) = (open.last, open.code_end);
            let tag = self.byte()?;
            if tag == 0 {
                if self.position != last + 1 {
                    return Err(self.invalid("a document ends before its length says"));
                }
                if code_end.is_some_and(|end| end != self.position) {
                    return Err(self.invalid("code with scope has a wrong length"));
                }
                self.open.pop();
                continue;
            }
            self.c_string()?;
            self.value(tag)?;
            if self.position > last {
                return Err(self.invalid("a value ends after its document"));
            }
        }
        Ok(())
    }

    /// Reads a document's length and goes into it.
    fn begin(&mut self, code_end: Option<usize>) -> Result<()> {
        if self.open.len() >= self.nesting_max {
            let message = format!("BSON nests deeper than {} levels", self.nesting_max);
            return Err(Error::new(Code::OVERFLOW, message));
        }
        let start = self.position;
        let len = self.length()?;
        if len < 5 || len > self.bytes.len() - start {
            return Err(self.invalid("a document's length is out of range"));
        }
        let last = start + len - 1;
        if self.open.last().is_some_and(|open| last >= open.last) {
            return Err(self.invalid("a document ends after the one around it"));
        }
        self.open.push(Open { last, code_end });
        Ok(())
    }

    fn value(&mut self, tag: u8) -> Result<()> {
        match tag {
            0x01 | 0x09 | 0x11 | 0x12 => self.skip(8),
            0x02 | 0x0D | 0x0E => self.string(),
            0x03 | 0x04 => self.begin(None),
            0x05 => self.binary(),
            0x06 | 0x0A | 0x7F | 0xFF => Ok(()),
            0x07 => self.skip(12),
            0x08 => match self.byte()? {
                0 | 1 => Ok(()),
                _ => Err(self.invalid("a boolean is neither 0 nor 1")),
            },
            0x0B => {
                self.c_string()?;
                self.c_string()
            }
            0x0C => {
                self.string()?;
                self.skip(12)
            }
            0x0F => self.code_with_scope(),
            0x10 => self.skip(4),
            0x13 => self.skip(16),
            _ => Err(self.invalid(&format!("type {tag:#04x} is unknown"))),
        }
    }

    fn code_with_scope(&mut self) -> Result<()> {
        let start = self.position;
        let len = self.length()?;
        self.string()?;
        self.begin(Some(start.saturating_add(len)))
    }

    fn binary(&mut self) -> Result<()> {
        let len = self.length()?;
        let subtype = self.byte()?;
        if subtype != 2 {
            return self.skip(len);
        }
        // The old subtype repeats the length inside.
        let inner = if len >= 4 { self.length()? } else { usize::MAX };
        if inner != len.wrapping_sub(4) {
            return Err(self.invalid("binary data of subtype 2 has a wrong inner length"));
        }
        self.skip(inner)
    }

    fn string(&mut self) -> Result<()> {
        let len = self.length()?;
        let start = self.position;
        self.skip(len)?;
        let text = self.bytes.get(start..self.position).and_then(<[u8]>::split_last);
        match text {
            Some((0, text)) => self.utf8(text),
            _ => Err(self.invalid("a string does not end with NUL")),
        }
    }

    fn c_string(&mut self) -> Result<()> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let len = memchr::memchr(0, rest).ok_or_else(|| self.invalid("a name does not end with NUL"))?;
        self.utf8(rest.get(..len).unwrap_or_default())?;
        self.position += len + 1;
        Ok(())
    }

    fn utf8(&self, text: &[u8]) -> Result<()> {
        match std::str::from_utf8(text) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.invalid("text is not UTF-8")),
        }
    }

    fn length(&mut self) -> Result<usize> {
        let bytes = self.bytes.get(self.position..).and_then(<[u8]>::first_chunk);
        let bytes = *bytes.ok_or_else(|| self.invalid("the bytes end within a length"))?;
        self.position += 4;
        usize::try_from(i32::from_le_bytes(bytes)).map_err(|_| self.invalid("a length is negative"))
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.position).ok_or_else(|| self.invalid("the bytes end early"))?;
        self.position += 1;
        Ok(byte)
    }

    fn skip(&mut self, len: usize) -> Result<()> {
        if len > self.bytes.len() - self.position {
            return Err(self.invalid("a value is longer than the bytes"));
        }
        self.position += len;
        Ok(())
    }

    #[cold]
    fn invalid(&self, what: &str) -> Error {
        Error::new(Code::INVALID_BSON, format!("invalid BSON: {what}, near byte {}", self.position))
    }
}
