//! `sim`: runs seeds of the simulator and prints what went wrong: the faults that it takes, the trace's end, and how to run
//! the seed again.
//!
//! Exit code 0 when no seed violates anything, 1 otherwise; with a bug put back, 0 when some seed notices it.

use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use clap::Parser;
use sim::{Kind, Options, Report, Size};

/// Runs a cluster of PSDB's replicas under simulated time, network and disks.
#[derive(Parser)]
struct Arguments {
    /// Runs one seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Runs the seeds from A to before B.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Runs only seeds as if they were about this: groups of replicas, or a whole cluster. Otherwise every fifth is about a
    /// cluster.
    #[arg(long, value_enum)]
    kind: Option<KindArgument>,
    /// Runs a model of a cluster of so many nodes that loses the node with the most primaries.
    #[arg(long, value_name = "NODES", conflicts_with_all = ["kind", "faults"])]
    model: Option<u32>,
    /// Shards of the model.
    #[arg(long, requires = "model", default_value_t = 2_000)]
    shards: u32,
    /// Shards of the model whose primary is on the node that is lost.
    #[arg(long, requires = "model", default_value_t = 1_000)]
    led: u32,
    /// Ends the model once other nodes have taken over: rebuilding takes most of the time.
    #[arg(long, requires = "model")]
    no_rebuild: bool,
    /// Threads to run seeds on; as many as there are cores when it is not given.
    #[arg(long)]
    threads: Option<usize>,
    /// Faults in a run.
    #[arg(long)]
    faults: Option<u64>,
    /// Prints the end of the trace of a seed that violates nothing, too.
    #[arg(long)]
    trace: bool,
    /// Lines of the trace's end to print.
    #[arg(long)]
    trace_lines: Option<usize>,
    /// Puts a bug back, and ends at the first seed that notices; `list` names all bugs.
    #[cfg(feature = "bugs")]
    #[arg(long)]
    bug: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum KindArgument {
    Groups,
    Cluster,
}

/// Seeds between two lines about how far a run is.
const PROGRESS_SEEDS: u64 = 1000;

/// What a run of many seeds came to.
#[derive(Default)]
struct Totals {
    runs: u64,
    failed: u64,
    answered: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = run_all(&arguments, &mut std::io::stdout().lock());
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn run_all(arguments: &Arguments, out: &mut impl Write) -> std::io::Result<bool> {
    #[cfg(feature = "bugs")]
    if arguments.bug.as_deref() == Some("list") {
        replica::bugs::Bug::ALL.iter().try_for_each(|(name, _)| writeln!(out, "{name}"))?;
        return Ok(true);
    }
    let seeds = match (arguments.seed, &arguments.seeds) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(seeds)) => seeds.clone(),
        (None, None) => 0..100,
    };
    let template = template(arguments)?;
    let mut totals = Totals::default();
    run_seeds(&seeds, template, threads(arguments), |report| {
        let fails = !report.violations.is_empty();
        totals.runs += 1;
        totals.answered += report.answered;
        totals.failed += u64::from(fails);
        if totals.runs.is_multiple_of(PROGRESS_SEEDS) {
            writeln!(out, "{} seeds, {} with violations", totals.runs, totals.failed)?;
        }
        if arguments.seed.is_some() || fails {
            print(&smallest(report, template), arguments.trace, out)?;
        }
        Ok(!(fails && expects_failure(arguments)))
    })?;
    let Totals { runs, failed, answered } = totals;
    writeln!(out, "{runs} seeds, {answered} operations answered, {failed} seeds with violations")?;
    Ok((failed > 0) == expects_failure(arguments))
}

/// Runs seeds on several threads and hands over each report, until the taker wants no more.
fn run_seeds(
    seeds: &Range<u64>,
    template: Options,
    threads: usize,
    mut take: impl FnMut(Report) -> std::io::Result<bool>,
) -> std::io::Result<()> {
    let next = AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        let (reports, finished) = mpsc::channel();
        for _ in 0..threads {
            let (next, reports) = (&next, reports.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    let is_wanted =
                        seed < seeds.end && reports.send(sim::run(Options { seed, ..template })).is_ok();
                    if !is_wanted {
                        return;
                    }
                }
            });
        }
        drop(reports);
        for report in finished {
            if !take(report)? {
                break;
            }
        }
        Ok(())
    })
}

/// The report with the fewest faults that still violates something.
fn smallest(report: Report, template: Options) -> Report {
    if report.violations.is_empty() {
        return report;
    }
    let with = |faults| sim::run(Options { seed: report.seed, faults, ..template });
    (0..template.faults).map(with).find(|fewer| !fewer.violations.is_empty()).unwrap_or(report)
}

fn print(report: &Report, always_trace: bool, out: &mut impl Write) -> std::io::Result<()> {
    let fails = !report.violations.is_empty();
    if always_trace || fails {
        report.tail.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    report.figures.iter().try_for_each(|figure| writeln!(out, "{figure}"))?;
    let Report { seed, faults, trace_hash, trace_lines, answered, resent, .. } = report;
    writeln!(
        out,
        "seed {seed}: trace {trace_hash:016x} ({trace_lines} lines), {answered} answered, {resent} resent"
    )?;
    if fails {
        report.schedule.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
        report.violations.iter().try_for_each(|violation| writeln!(out, "  VIOLATION: {violation}"))?;
        writeln!(out, "  again: cargo run --release -p sim -- --seed {seed} --faults {faults}")?;
    }
    Ok(())
}

fn threads(arguments: &Arguments) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    arguments.threads.unwrap_or_else(cores).max(1)
}

fn template(arguments: &Arguments) -> std::io::Result<Options> {
    let usual = Options::new(0);
    Ok(Options {
        kind: kind(arguments),
        faults: arguments.faults.unwrap_or(if arguments.model.is_some() { 0 } else { usual.faults }),
        trace_lines: arguments.trace_lines.unwrap_or(usual.trace_lines),
        #[cfg(feature = "bugs")]
        bug: find_bug(arguments.bug.as_deref())?,
        ..usual
    })
}

fn kind(arguments: &Arguments) -> Option<Kind> {
    let Arguments { shards, led, no_rebuild, .. } = *arguments;
    let model = arguments.model.map(|nodes| Kind::Large(Size { nodes, shards, led, rebuilds: !no_rebuild }));
    model.or_else(|| {
        arguments.kind.map(|kind| match kind {
            KindArgument::Groups => Kind::Groups,
            KindArgument::Cluster => Kind::Cluster,
        })
    })
}

/// Whether a bug is put back, which some seed must notice.
#[cfg(feature = "bugs")]
fn expects_failure(arguments: &Arguments) -> bool {
    arguments.bug.is_some()
}

/// As above; nothing is put back without the feature.
#[cfg(not(feature = "bugs"))]
fn expects_failure(_arguments: &Arguments) -> bool {
    false
}

#[cfg(feature = "bugs")]
fn find_bug(name: Option<&str>) -> std::io::Result<Option<replica::bugs::Bug>> {
    let Some(name) = name else { return Ok(None) };
    // Owner loops that panic are part of what is looked for.
    std::panic::set_hook(Box::new(|_| {}));
    let found = replica::bugs::Bug::ALL.into_iter().find(|(known, _)| *known == name);
    match found {
        Some((_, bug)) => Ok(Some(bug)),
        None => Err(std::io::Error::other(format!("no bug is called {name}"))),
    }
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("a range is written A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    Ok(number(first)?..number(end)?)
}
