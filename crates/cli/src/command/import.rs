//! `psdb import`: loads a file or a pipe into a collection.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use super::load::{Format, LoadOptions, load};
use crate::connection::{Connection, Target, split_namespace};
use crate::failure::Failure;

/// Buffer of the input, in bytes.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Load JSON lines, a JSON array, Extended JSON or CSV into a collection.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    psdb import geo.cities --file data/cities.jsonl\n  \
    psdb import shop.orders --file orders.csv --drop\n  \
    curl -s https://example.com/items.json | psdb import shop.items --format json\n\n\
    Every record that is refused is reported on standard error by its number (for JSON lines: its line) and reason, \
    and the exit code is then 1.")]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
    /// DATABASE.COLLECTION.
    namespace: String,
    /// The file to read; "-" is standard input.
    #[arg(long, short, default_value = "-")]
    file: PathBuf,
    /// The layout; by default it follows from the file's name or its first character.
    #[arg(long)]
    format: Option<Format>,
    /// Documents in one insert.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Delete the collection first.
    #[arg(long)]
    drop: bool,
    /// End at the first record that is refused.
    #[arg(long)]
    stop_on_error: bool,
    /// CSV: the names of the columns, when the file has no header.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    columns: Vec<String>,
    /// CSV: keep every cell as text.
    #[arg(long)]
    no_types: bool,
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let (database, collection) = split_namespace(&arguments.namespace)?;
    let (mut input, bytes): (Box<dyn BufRead + Send>, _) = if arguments.file.as_os_str() == "-" {
        (Box::new(BufReader::with_capacity(BUFFER_BYTES, std::io::stdin())), None)
    } else {
        let named = |error| Failure::from(error).context(arguments.file.display());
        let file = File::open(&arguments.file).map_err(named)?;
        let bytes = file.metadata().map_err(named)?.len();
        (Box::new(BufReader::with_capacity(BUFFER_BYTES, file)), Some(bytes))
    };
    let format = match arguments.format {
        Some(format) => format,
        None => detect(&arguments, input.as_mut())?,
    };
    let connection = Connection::open(&arguments.target.uri).await?;
    let collection = connection.database(database).collection(collection);
    if arguments.drop {
        collection.drop().await?;
    }
    let options = LoadOptions {
        format,
        batch: arguments.batch as usize,
        stop_on_error: arguments.stop_on_error,
        columns: arguments.columns,
        infer_types: !arguments.no_types,
    };
    load(input, bytes, collection, options).await
}

/// The layout by the file's name, else by the first character.
fn detect(arguments: &Arguments, input: &mut dyn BufRead) -> Result<Format, Failure> {
    match arguments.file.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => return Ok(Format::Csv),
        Some("jsonl" | "ndjson") => return Ok(Format::Jsonl),
        _ => {}
    }
    let first = input.fill_buf()?.iter().copied().find(|byte| !byte.is_ascii_whitespace());
    Ok(match first {
        Some(b'[') => Format::Json,
        _ if arguments.file.extension().is_some_and(|extension| extension == "json") => Format::Json,
        _ => Format::Jsonl,
    })
}
