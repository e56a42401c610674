//! The checker of the fault campaign: reads what clients of a real cluster saw, and says whether a correct one shows it.
//!
//! `fault-checker DIRECTORY|FILE...` reads the named files and the `history-*.jsonl` of the named directories, as written
//! by the campaign's clients, and checks them in three ways that know nothing of each other: direct checks of each list
//! (`lists`) and counter (`counters`) that say in a sentence what is wrong; a search for an order of each key's operations
//! (`linearizable`); and the cycles of dependencies that `adya` finds in all lists (`cycles`). One fault of the database is
//! therefore reported more than once. Prints a summary (`report`).
//!
//! Called by hand, after the campaign; docs/TESTING.md says how. Always holds: exits with 0 when there is no anomaly, with 1
//! when there is one, and with 2 when the input cannot be read.

mod counters;
mod cycles;
mod history;
mod linearizable;
mod lists;
mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use history::History;
use report::{Anomaly, Summary};

const ANOMALIES: u8 = 1;
const UNREADABLE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match run(&arguments, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(ANOMALIES),
        Err(error) => {
            // Nobody is left to tell when this fails too.
            let _ = writeln!(io::stderr(), "fault-checker: {error}");
            ExitCode::from(UNREADABLE)
        }
    }
}

/// Checks the histories, prints the summary, and returns whether they are right.
fn run(arguments: &[PathBuf], output: &mut impl Write) -> Result<bool, String> {
    if arguments.is_empty() {
        return Err("usage: fault-checker DIRECTORY|FILE...".into());
    }
    let history = History::read(arguments)?;
    let (anomalies, unverified) = check(&history);
    let summary = Summary { history: &history, anomalies: &anomalies, unverified };
    write!(output, "{summary}").map_err(|error| error.to_string())?;
    Ok(anomalies.is_empty())
}

/// All anomalies, those with the clearest words first, and the number of appends that nothing can show.
fn check(history: &History) -> (Vec<Anomaly<'_>>, usize) {
    let (mut anomalies, mut unverified) = (Vec::new(), 0);
    for (key, operations) in &history.lists {
        let findings = lists::check(key, operations);
        anomalies.extend(findings.anomalies);
        unverified += findings.unverified;
    }
    anomalies.extend(history.counters.iter().flat_map(|(key, operations)| counters::check(key, operations)));
    anomalies.extend(history.lists.iter().filter_map(|(key, each)| linearizable::check_list(key, each)));
    anomalies
        .extend(history.counters.iter().filter_map(|(key, each)| linearizable::check_counter(key, each)));
    anomalies.extend(cycles::check(&history.lists));
    (anomalies, unverified)
}
