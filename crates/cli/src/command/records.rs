//! Records out of a stream: JSON lines, JSON arrays, CSV. Never holds more than one record of the input.
//!
//! Used by `load`. A record that cannot be read is handed on with the reason, and reading goes on behind it.

use std::collections::BTreeSet;
use std::io::{BufRead, Read};

use bson::{Bson, Document, RawDocumentBuf};

use super::load::{Format, LoadOptions};
use crate::failure::Failure;
use crate::literal;

/// Longest record, in bytes: more than a message of the wire protocol can carry.
const RECORD_BYTES_MAX: usize = base::limits::MESSAGE_BYTES_MAX;

/// One record of the input.
pub(super) struct Record {
    /// Its line (JSON lines) or its position (JSON arrays, CSV), from 1.
    pub(super) number: u64,
    /// The document, or why there is none.
    pub(super) document: Result<RawDocumentBuf, String>,
    /// Bytes of input read so far.
    pub(super) bytes_read: u64,
}

/// Reads records until the end, or until `take` returns false.
pub(super) fn read(
    input: Box<dyn BufRead + Send>,
    options: &LoadOptions,
    take: &mut dyn FnMut(Record) -> bool,
) -> Result<(), Failure> {
    match options.format {
        Format::Jsonl => read_lines(input, take),
        Format::Json => read_values(input, take),
        Format::Csv => read_csv(input, options, take),
    }
}

fn read_lines(
    mut input: Box<dyn BufRead + Send>,
    take: &mut dyn FnMut(Record) -> bool,
) -> Result<(), Failure> {
    let mut line = Vec::new();
    let mut bytes_read = 0;
    for number in 1.. {
        line.clear();
        let limit = RECORD_BYTES_MAX as u64 + 1;
        let length = (&mut input).take(limit).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        if length > RECORD_BYTES_MAX {
            return Err(Failure::refused(format!("line {number} is longer than {RECORD_BYTES_MAX} bytes")));
        }
        bytes_read += length as u64;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        if !take(Record { number, document: parse(&line), bytes_read }) {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads `[{..}, {..}]` or `{..} {..}`.
fn read_values(input: Box<dyn BufRead + Send>, take: &mut dyn FnMut(Record) -> bool) -> Result<(), Failure> {
    let mut splitter = Splitter { input, bytes_read: 0, in_array: false, ended: false };
    for number in 1.. {
        let Some(text) = splitter.next()? else {
            if let Some(reason) = splitter.bad_end()? {
                let bytes_read = splitter.bytes_read;
                take(Record { number, document: Err(reason.to_owned()), bytes_read });
            }
            return Ok(());
        };
        if !take(Record { number, document: parse(&text), bytes_read: splitter.bytes_read }) {
            return Ok(());
        }
    }
    Ok(())
}

/// Cuts a stream of JSON into its outermost documents by counting brackets outside of strings.
struct Splitter {
    input: Box<dyn BufRead + Send>,
    bytes_read: u64,
    in_array: bool,
    ended: bool,
}

impl Splitter {
    /// The bytes of the next document.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let Some(first) = self.first_byte()? else {
            return Ok(None);
        };
        let mut text = vec![first];
        let mut depth = usize::from(first == b'{');
        let mut quote = None;
        let mut escaped = false;
        while depth > 0 || first != b'{' {
            let Some(byte) = self.byte()? else {
                break;
            };
            // Something that is no document ends at the next separator, and the parser says what it is.
            if first != b'{' && quote.is_none() && matches!(byte, b',' | b'\n' | b']') {
                self.ended = byte == b']';
                break;
            }
            text.push(byte);
            match (quote, byte) {
                _ if escaped => escaped = false,
                (Some(_), b'\\') => escaped = true,
                (Some(open), byte) if open == byte => quote = None,
                (Some(_), _) => {}
                (None, b'"' | b'\'') => quote = Some(byte),
                (None, b'{' | b'[') => depth += 1,
                (None, b'}' | b']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if text.len() > RECORD_BYTES_MAX {
                return Err(Failure::refused(format!("a document is longer than {RECORD_BYTES_MAX} bytes")));
            }
        }
        Ok(Some(text))
    }

    /// The first byte of the next value, past separators and the array's brackets.
    fn first_byte(&mut self) -> Result<Option<u8>, Failure> {
        while !self.ended {
            match self.byte()? {
                None => return Ok(None),
                Some(b' ' | b'\t' | b'\r' | b'\n' | b',' | 0xEF | 0xBB | 0xBF) => {}
                Some(b'[') if !self.in_array => self.in_array = true,
                Some(b']') if self.in_array => self.ended = true,
                Some(byte) => return Ok(Some(byte)),
            }
        }
        Ok(None)
    }

    /// What is wrong with the end of the input, behind its last document.
    fn bad_end(&mut self) -> Result<Option<&'static str>, Failure> {
        if self.in_array && !self.ended {
            return Ok(Some("the array is not closed: the input is cut off"));
        }
        while let Some(byte) = self.byte()? {
            if !byte.is_ascii_whitespace() {
                return Ok(Some("there is more behind the end of the array"));
            }
        }
        Ok(None)
    }

    fn byte(&mut self) -> Result<Option<u8>, Failure> {
        let byte = self.input.fill_buf()?.first().copied();
        if byte.is_some() {
            self.input.consume(1);
            self.bytes_read += 1;
        }
        Ok(byte)
    }
}

fn parse(bytes: &[u8]) -> Result<RawDocumentBuf, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("byte {} is not UTF-8", error.valid_up_to() + 1))?
        .trim();
    let document = literal::parse_document(text).map_err(|error| error.render(text))?;
    to_raw(&document)
}

fn to_raw(document: &Document) -> Result<RawDocumentBuf, String> {
    RawDocumentBuf::try_from(document).map_err(|error| error.to_string())
}

fn read_csv(
    input: Box<dyn BufRead + Send>,
    options: &LoadOptions,
    take: &mut dyn FnMut(Record) -> bool,
) -> Result<(), Failure> {
    let has_header = options.columns.is_empty();
    let mut reader =
        csv::ReaderBuilder::new().has_headers(has_header).flexible(true).from_reader(Quotes::of(input));
    let columns = if has_header {
        reader.headers().map_err(|error| Failure::refused(format!("the header: {error}")))?.clone()
    } else {
        csv::StringRecord::from(options.columns.clone())
    };
    check_columns(&columns)?;
    let mut row = csv::StringRecord::new();
    for number in 1.. {
        let document = match reader.read_record(&mut row) {
            Ok(false) => return Ok(()),
            Ok(true) if reader.get_ref().never_closed() => Err("a quote is never closed".to_owned()),
            Ok(true) => csv_document(&columns, &row, options.infer_types),
            Err(error) if error.is_io_error() => return Err(Failure::refused(error)),
            Err(error) => Err(error.to_string()),
        };
        if !take(Record { number, document, bytes_read: reader.position().byte() }) {
            return Ok(());
        }
    }
    Ok(())
}

/// Of two columns with one name, one would be lost.
fn check_columns(columns: &csv::StringRecord) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    match columns.iter().find(|column| !seen.insert(*column)) {
        Some(twice) => Err(Failure::refused(format!("the column {twice:?} is there twice"))),
        None => Ok(()),
    }
}

/// The input of the CSV reader, which takes the end of the input for the end of a quoted cell.
struct Quotes {
    input: Box<dyn BufRead + Send>,
    cell: Cell,
    ended: bool,
}

/// Where in a cell the input is.
enum Cell {
    Start,
    Plain,
    Quoted,
    /// Behind a quote in a quoted cell: its end, or the first half of a doubled quote.
    Closed,
}

impl Quotes {
    fn of(input: Box<dyn BufRead + Send>) -> Quotes {
        Quotes { input, cell: Cell::Start, ended: false }
    }

    /// Whether the input has ended within a quoted cell.
    fn never_closed(&self) -> bool {
        self.ended && matches!(self.cell, Cell::Quoted)
    }
}

impl Read for Quotes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.ended = length == 0;
        for byte in buffer.iter().take(length) {
            self.cell = match (&self.cell, byte) {
                (Cell::Start | Cell::Closed, b'"') => Cell::Quoted,
                (Cell::Quoted, b'"') => Cell::Closed,
                (Cell::Quoted, _) => Cell::Quoted,
                (_, b',' | b'\n' | b'\r') => Cell::Start,
                _ => Cell::Plain,
            };
        }
        Ok(length)
    }
}

/// A row as a document: empty cells are left out, dotted columns become nested documents.
fn csv_document(
    columns: &csv::StringRecord,
    row: &csv::StringRecord,
    infer_types: bool,
) -> Result<RawDocumentBuf, String> {
    if row.len() > columns.len() {
        return Err(format!("{} cells, but there are only {} columns", row.len(), columns.len()));
    }
    let mut document = Document::new();
    for (column, cell) in columns.iter().zip(row.iter()).filter(|(_, cell)| !cell.is_empty()) {
        let value = if infer_types { infer(cell) } else { Bson::String(cell.to_owned()) };
        set_path(&mut document, column.trim_start_matches('\u{feff}'), value)?;
    }
    to_raw(&document)
}

fn set_path(document: &mut Document, path: &str, value: Bson) -> Result<(), String> {
    let Some((parent, rest)) = path.split_once('.') else {
        document.insert(path, value);
        return Ok(());
    };
    match document.entry(parent.to_owned()).or_insert_with(|| Document::new().into()) {
        Bson::Document(inner) => set_path(inner, rest, value),
        _ => Err(format!("column {path:?}: {parent:?} is already a value")),
    }
}

/// The value that a cell most likely means. Numbers with leading zeros are codes, not numbers.
fn infer(cell: &str) -> Bson {
    match cell {
        "true" => return Bson::Boolean(true),
        "false" => return Bson::Boolean(false),
        _ => {}
    }
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'));
    if numeric && !leading_zero {
        if let Ok(number) = literal::parse(cell) {
            return number;
        }
    } else if cell.len() >= 20 && cell.as_bytes().get(10) == Some(&b'T') {
        if let Ok(date) = bson::DateTime::parse_rfc3339_str(cell) {
            return Bson::DateTime(date);
        }
    } else if let Some(json) =
        cell.get(..1).filter(|first| matches!(*first, "{" | "[")).and_then(|_| literal::parse(cell).ok())
    {
        return json;
    }
    Bson::String(cell.to_owned())
}
