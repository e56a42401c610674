//! What the tests of this crate share: values written and printed as in a shell, and running scripts.

pub(crate) mod any;
pub(crate) mod json;

use std::error::Error;
use std::path::Path;

use bson::{Bson, Document};
use document::{DocBuf, EvalContext};

pub(crate) use json::{parse, show};

/// Parses a document in shell syntax, as raw bytes.
pub(crate) fn document(text: &str) -> DocBuf {
    DocBuf::encode(&tree(text)).expect("encodes")
}

/// Parses a document in shell syntax.
pub(crate) fn tree(text: &str) -> Document {
    match parse(text) {
        Ok(Bson::Document(document)) => document,
        other => panic!("not a document: {text}: {other:?}"),
    }
}

/// A context at a fixed time.
pub(crate) fn context() -> EvalContext {
    let now = bson::DateTime::from_millis(1_700_000_000_000);
    EvalContext::new(now, base::Timestamp { seconds: 1_700_000_000, counter: 1 })
}

/// Runs every script in `tests/scripts/<area>` with a fresh runner. A runner is a function from a command's name and
/// its arguments to output; errors of the document crate are output too.
pub(crate) fn run_scripts<R>(area: &str, new_runner: impl Fn() -> R)
where
    R: FnMut(&str, &[&str]) -> Result<String, Box<dyn Error>>,
{
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(area);
    let entries = std::fs::read_dir(&directory).expect("the area has a directory");
    let mut scripts: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", directory.display());
    for script in scripts {
        let mut runner = Runner(new_runner());
        goldenscript::run(&mut runner, &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}

struct Runner<R>(R);

impl<R> goldenscript::Runner for Runner<R>
where
    R: FnMut(&str, &[&str]) -> Result<String, Box<dyn Error>>,
{
    type Command = goldenscript::Command;

    fn run(
        &mut self,
        command: &goldenscript::Command,
        _: &goldenscript::Context,
    ) -> Result<String, Box<dyn Error>> {
        let mut consumer = command.consume_args();
        let mut arguments = Vec::new();
        while let Some(argument) = consumer.next_pos() {
            arguments.push(argument);
        }
        consumer.reject_next()?;
        match (self.0)(&command.name, &arguments) {
            Err(error) if error.is::<base::Error>() => Ok(error.to_string()),
            outcome => outcome,
        }
    }
}
