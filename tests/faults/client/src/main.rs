//! A client process with the official Rust driver: what `workload.py` is with pymongo, on the same lists and counters.
//!
//! `fault-client URI OUTPUT PROCESS SECONDS KEYS_PREFIX`, run as a process of its own by the campaign. Always holds: it ends
//! after so many seconds, or earlier once its standard input is closed; every append of its own is followed by a read of the
//! same list; a line is written only for an operation that was answered or failed.

mod history;
mod workload;

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mongodb::options::ClientOptions;
use mongodb::sync::Client;

use history::History;
use workload::Workload;

/// How long the driver looks for a router, as in `workload.py`.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when this fails too.
            let _ = writeln!(io::stderr(), "fault-client: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let [uri, output, process, seconds, prefix] = arguments else {
        return Err("usage: fault-client URI OUTPUT PROCESS SECONDS KEYS_PREFIX".into());
    };
    let process: i64 = process.parse().map_err(|error| format!("PROCESS {process}: {error}"))?;
    let seconds: f64 = seconds.parse().map_err(|error| format!("SECONDS {seconds}: {error}"))?;
    let seconds =
        Duration::try_from_secs_f64(seconds).map_err(|error| format!("SECONDS {seconds}: {error}"))?;
    let client = connect(uri).map_err(|error| format!("{uri}: {error}"))?;
    let history = History::create(output, process).map_err(|error| format!("{output}: {error}"))?;
    let mut workload = Workload::new(&client.database("faults"), history, process, prefix);
    let (until, told) = (Instant::now() + seconds, told_to_end());
    while Instant::now() < until && !told.load(Ordering::Acquire) {
        workload.step().map_err(|error| format!("{output}: {error}"))?;
    }
    workload.finish().map_err(|error| format!("{output}: {error}"))
}

fn connect(uri: &str) -> mongodb::error::Result<Client> {
    let mut options = ClientOptions::parse(uri).run()?;
    options.server_selection_timeout = Some(SELECTION_TIMEOUT);
    Client::with_options(options)
}

/// Becomes true once standard input is closed: whoever started this process is done, or gone.
fn told_to_end() -> Arc<AtomicBool> {
    let told = Arc::new(AtomicBool::new(false));
    let teller = Arc::clone(&told);
    std::thread::spawn(move || {
        // An error is an end, too.
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        teller.store(true, Ordering::Release);
    });
    told
}
