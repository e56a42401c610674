//! Running scripts: which ones, with what, and the words that they have in common.

use std::error::Error;
use std::path::Path;

use goldenscript::{Argument, Command, Runner};

use super::machine::KvCommand;

/// Runs every script in `tests/scripts/NAME`, each with a runner and a runtime of its own, whose time only passes when
/// nothing else can happen.
pub(crate) fn run_scripts<R: Runner<Command = Command>>(
    name: &str,
    runner: impl Fn(tokio::runtime::Runtime) -> R,
) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(name);
    let mut scripts: Vec<_> = std::fs::read_dir(directory)
        .expect("the scripts are beside the code")
        .map(|entry| entry.expect("a readable directory").path())
        .collect();
    scripts.sort();
    for script in scripts {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let mut runner = runner(runtime.expect("a runtime"));
        goldenscript::run(&mut runner, &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}

/// A command's arguments, none of which has a name.
pub(crate) fn words(command: &Command) -> Vec<&str> {
    fn word(argument: &Argument) -> &str {
        match argument {
            Argument::Positional(word) => word,
            other => panic!("unexpected argument {other}"),
        }
    }
    command.args.iter().map(word).collect()
}

/// A command for the machine, as scripts write it.
pub(crate) fn machine_command(text: &str) -> Result<KvCommand, Box<dyn Error>> {
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    Ok(match words.as_slice() {
        [name, key, value] if name == "set" => KvCommand::Set(key.clone(), value.clone()),
        [name, key, value] if name == "insert" => KvCommand::Insert(key.clone(), value.clone()),
        [name, key] if name == "incr" => KvCommand::Increment(key.clone()),
        [name, key] if name == "delete" => KvCommand::Delete(key.clone()),
        [name, key] if name == "get" => KvCommand::Get(key.clone()),
        _ => return Err(format!("unknown machine command {text}").into()),
    })
}
