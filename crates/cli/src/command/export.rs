//! `psdb export`: writes a collection to a file or a pipe.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use bson::{Bson, Document, doc};
use futures::TryStreamExt;

use super::input;
use super::kv;
use super::load::Format;
use crate::connection::{Connection, Target, split_namespace};
use crate::failure::Failure;
use crate::literal::json;
use crate::output;

/// Documents fetched at a time, and the documents from which CSV columns are taken.
const BATCH_DOCUMENTS: u32 = 1000;

/// Write a collection as JSON lines, a JSON array or CSV.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb export geo.cities --file cities.jsonl\n  \
    psdb export geo.cities --filter '{country: \"IS\"}' --format csv --columns name,population\n  \
    psdb export shop.orders --canonical > orders.jsonl   # keeps the width of every number")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// DATABASE.COLLECTION.
    namespace: String,
    /// The file to write; "-" is standard output.
    #[arg(long, short, default_value = "-")]
    file: PathBuf,
    /// The layout; by default it follows from the file's name, else it is JSON lines.
    #[arg(long)]
    format: Option<Format>,
    /// Only the documents that match.
    #[arg(long, default_value = "{}", value_name = "JSON")]
    filter: String,
    /// The order.
    #[arg(long, value_name = "JSON")]
    sort: Option<String>,
    /// Canonical Extended JSON: every number keeps its type.
    #[arg(long)]
    canonical: bool,
    /// CSV: the fields to write, dotted for nested ones; by default those of the first documents.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Vec<String>,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let (database, collection) = split_namespace(&arguments.namespace)?;
    let filter = input::document(&arguments.filter, "--filter")?;
    let connection = Connection::open(&arguments.target.uri).await?;
    let mut command = doc! { "find": collection, "filter": filter, "batchSize": BATCH_DOCUMENTS };
    if let Some(sort) = &arguments.sort {
        command.insert("sort", input::document(sort, "--sort")?);
    }
    let total =
        connection.database(database).collection::<Document>(collection).estimated_document_count().await?;
    let mut cursor = connection.cursor(database, command).await?;

    let to_stdout = arguments.file.as_os_str() == "-";
    let out: Box<dyn Write> = if to_stdout {
        Box::new(std::io::stdout().lock())
    } else {
        let named = |error| Failure::from(error).context(arguments.file.display());
        Box::new(File::create(&arguments.file).map_err(named)?)
    };
    let mut writer = Writer::new(&arguments, Box::new(BufWriter::new(out)));
    let bar = output::progress(Some(total), "{bar:40} {pos}/{len} documents, {per_sec}");
    let mut written = 0u64;
    while let Some(document) = cursor.try_next().await? {
        writer.write(document)?;
        written += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    writer.finish()?;
    output::warn(output::documents(written));
    Ok(())
}

struct Writer {
    out: Box<dyn Write>,
    format: Format,
    form: json::Form,
    columns: Vec<String>,
    /// CSV: the columns, and the fields that came too late to be some; empty where the user chose the columns.
    seen: Vec<String>,
    /// CSV: documents that wait until the columns are known.
    waiting: Vec<Document>,
    header_written: bool,
    records: u64,
}

impl Writer {
    fn new(arguments: &Arguments, out: Box<dyn Write>) -> Writer {
        let by_name = match arguments.file.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            _ => Format::Jsonl,
        };
        Writer {
            out,
            format: arguments.format.unwrap_or(by_name),
            form: if arguments.canonical { json::Form::Canonical } else { json::Form::Relaxed },
            columns: arguments.columns.clone(),
            seen: Vec::new(),
            waiting: Vec::new(),
            header_written: false,
            records: 0,
        }
    }

    fn write(&mut self, document: Document) -> Result<(), Failure> {
        match self.format {
            Format::Jsonl => writeln!(self.out, "{}", json::document_line(&document, self.form))?,
            Format::Json => {
                let separator = if self.records == 0 { "[\n" } else { ",\n" };
                write!(self.out, "{separator}{}", json::document_line(&document, self.form))?;
            }
            Format::Csv if self.columns.is_empty() && self.waiting.len() < BATCH_DOCUMENTS as usize => {
                self.waiting.push(document);
            }
            Format::Csv => {
                self.flush_waiting()?;
                if !self.seen.is_empty() {
                    collect_columns(&document, "", &mut self.seen);
                }
                self.write_row(&document)?;
            }
        }
        self.records += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        match self.format {
            Format::Jsonl => {}
            Format::Json if self.records == 0 => writeln!(self.out, "[]")?,
            Format::Json => writeln!(self.out, "\n]")?,
            Format::Csv => self.flush_waiting()?,
        }
        self.out.flush()?;
        let late = self.seen.get(self.columns.len()..).unwrap_or_default();
        if !late.is_empty() {
            output::warn(format!(
                "fields that the first {BATCH_DOCUMENTS} documents do not have are left out, see --columns: {}",
                late.join(", ")
            ));
        }
        Ok(())
    }

    /// Settles the columns, writes the header and the documents that waited for it.
    fn flush_waiting(&mut self) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.waiting);
        if self.columns.is_empty() {
            waiting.iter().for_each(|document| collect_columns(document, "", &mut self.columns));
            self.seen.clone_from(&self.columns);
        }
        if !self.header_written && !self.columns.is_empty() {
            self.header_written = true;
            let header = self.columns.clone();
            self.write_cells(&header)?;
        }
        waiting.iter().try_for_each(|document| self.write_row(document))
    }

    fn write_row(&mut self, document: &Document) -> Result<(), Failure> {
        let cells: Vec<String> = self.columns.iter().map(|column| cell(document, column)).collect();
        self.write_cells(&cells)
    }

    fn write_cells(&mut self, cells: &[String]) -> Result<(), Failure> {
        let mut row = csv::WriterBuilder::new().from_writer(Vec::new());
        row.write_record(cells).map_err(Failure::refused)?;
        let bytes = row.into_inner().map_err(Failure::refused)?;
        self.out.write_all(&bytes)?;
        Ok(())
    }
}

/// Adds the dotted names of `document`'s fields that are not in `columns` yet.
fn collect_columns(document: &Document, prefix: &str, columns: &mut Vec<String>) {
    for (name, value) in document {
        let path = format!("{prefix}{name}");
        match value {
            Bson::Document(inner) if !inner.is_empty() => {
                collect_columns(inner, &format!("{path}."), columns)
            }
            _ if columns.contains(&path) => {}
            _ => columns.push(path),
        }
    }
}

/// The field at a dotted path as the text of a cell; dates and ids without their wrapping.
fn cell(document: &Document, path: &str) -> String {
    match lookup(document, path) {
        None | Some(Bson::Null) => String::new(),
        Some(Bson::ObjectId(id)) => id.to_hex(),
        Some(Bson::DateTime(when)) => when.try_to_rfc3339_string().unwrap_or_default(),
        Some(value) => kv::text(value),
    }
}

fn lookup<'d>(document: &'d Document, path: &str) -> Option<&'d Bson> {
    if let Some(value) = document.get(path) {
        return Some(value);
    }
    let (parent, rest) = path.split_once('.')?;
    lookup(document.get_document(parent).ok()?, rest)
}
