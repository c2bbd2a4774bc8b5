//! `forebay-sim`: runs seeds of the simulation.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use forebay_sim::coverage::Coverage;

/// Runs the simulation of the edge: the same seed and steps, the same run.
#[derive(Debug, Parser)]
#[command(name = "forebay-sim")]
struct Arguments {
    /// The seed, or the first of several
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds to run
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Run seeds for so many minutes, however many they are
    #[arg(long)]
    minutes: Option<f64>,
    /// Steps of trouble in each run, before calm comes
    #[arg(long, default_value_t = forebay_sim::STEPS)]
    steps: u64,
    /// Stop at the first seed that fails
    #[arg(long)]
    fail_fast: bool,
    /// Print everything that happens
    #[arg(long)]
    trace: bool,
}

/// What all runs came to.
#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    failed: u64,
    lost: (u64, u64),
    coverage: Coverage,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut std::io::stdout().lock()) {
        Ok(0) => ExitCode::SUCCESS,
        // Whoever read the output had enough of it.
        Ok(_) | Err(_) => ExitCode::FAILURE,
    }
}

/// Runs the seeds. How many failed.
fn run(arguments: &Arguments, out: &mut impl Write) -> std::io::Result<u64> {
    // A machine that panics is reported with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let time = arguments.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let is_over = |sum: &Sum| match time {
        Some(time) => began.elapsed() >= time,
        None => sum.seeds >= arguments.seeds,
    };
    let mut sum = Sum::default();
    while !(is_over(&sum) || arguments.fail_fast && sum.failed > 0) {
        run_one(arguments, arguments.seed.wrapping_add(sum.seeds), &mut sum, out)?;
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let per_minute = |count: u64| (count as f64 / minutes) as u64;
    write!(out, "{}", sum.coverage)?;
    writeln!(
        out,
        "{} of {} seeds failed; {} seeds and {} steps a minute, {} steps; {} acknowledged events \
         were lost by fail-overs, and {} others",
        sum.failed,
        sum.seeds,
        per_minute(sum.seeds),
        per_minute(sum.steps),
        sum.steps,
        sum.lost.0,
        sum.lost.1,
    )?;
    Ok(sum.failed)
}

fn run_one(
    arguments: &Arguments,
    seed: u64,
    sum: &mut Sum,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let outcome = forebay_sim::run(seed, arguments.steps, arguments.trace);
    out.write_all(outcome.trace.as_bytes())?;
    sum.seeds += 1;
    sum.steps += outcome.steps;
    sum.coverage.add(&outcome.coverage);
    match outcome.result {
        Ok(report) => {
            sum.lost.0 += report.lost.0;
            sum.lost.1 += report.lost.1;
            if arguments.seeds == 1 && arguments.minutes.is_none() {
                writeln!(out, "seed {seed}: {report:?}")?;
            }
        }
        Err(error) => {
            sum.failed += 1;
            let replay = forebay_sim::replay(seed, arguments.steps);
            writeln!(out, "seed {seed}: {error}\n  {replay}")?;
        }
    }
    Ok(())
}
