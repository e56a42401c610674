//! `sim`: runs seeds of the simulator and prints what went wrong, with the trace's end and how to run the seed again.
//!
//! Exit code 0 when no seed violates anything, 1 otherwise.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use sim::{Options, Report};

/// Runs PSDB's replicas under simulated time, disk faults and crashes.
#[derive(Parser)]
struct Arguments {
    /// Runs one seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Runs the seeds from A to before B.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<std::ops::Range<u64>>,
    /// Prints the end of the trace of seeds that violate nothing, too.
    #[arg(long)]
    trace: bool,
    /// Puts a bug back: answer-before-fsync, applied-index-before-batch, evaluate-without-overlay, retry-record-lost.
    #[cfg(feature = "bugs")]
    #[arg(long)]
    bug: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = match (arguments.seed, &arguments.seeds) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(seeds)) => seeds.clone(),
        (None, None) => 0..100,
    };
    let mut out = std::io::stdout().lock();
    match run_all(&arguments, seeds, &mut out) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

fn run_all(arguments: &Arguments, seeds: std::ops::Range<u64>, out: &mut impl Write) -> std::io::Result<u64> {
    let (mut runs, mut failed, mut answered) = (0u64, 0u64, 0u64);
    for seed in seeds {
        #[cfg(not(feature = "bugs"))]
        let options = Options::new(seed);
        #[cfg(feature = "bugs")]
        let options = Options { bug: find_bug(arguments.bug.as_deref())?, ..Options::new(seed) };
        let report = sim::run(options);
        runs += 1;
        answered += report.answered;
        failed += u64::from(!report.violations.is_empty());
        if arguments.seed.is_some() || !report.violations.is_empty() {
            print(&report, arguments.trace, out)?;
        }
    }
    writeln!(out, "{runs} seeds, {answered} operations answered, {failed} seeds with violations")?;
    Ok(failed)
}

fn print(report: &Report, always_trace: bool, out: &mut impl Write) -> std::io::Result<()> {
    if always_trace || !report.violations.is_empty() {
        report.tail.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    let Report { seed, trace_hash, trace_lines, answered, resent, .. } = report;
    writeln!(
        out,
        "seed {seed}: trace {trace_hash:016x} ({trace_lines} lines), {answered} answered, {resent} resent"
    )?;
    for violation in &report.violations {
        writeln!(out, "  VIOLATION: {violation}")?;
    }
    if !report.violations.is_empty() {
        writeln!(out, "  again: cargo run --release -p sim -- --seed {seed}")?;
    }
    Ok(())
}

#[cfg(feature = "bugs")]
fn find_bug(name: Option<&str>) -> std::io::Result<Option<replica::bugs::Bug>> {
    let Some(name) = name else { return Ok(None) };
    let found = replica::bugs::Bug::ALL.into_iter().find(|(known, _)| *known == name);
    match found {
        Some((_, bug)) => Ok(Some(bug)),
        None => Err(std::io::Error::other(format!("no bug is called {name}"))),
    }
}

fn parse_range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("a range is written A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    Ok(number(first)?..number(end)?)
}
