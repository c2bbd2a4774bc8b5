//! `forebay-sim`: runs seeds of the simulation.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

/// Runs the simulation of holds, feeds and requests: the same seed, the same run.
#[derive(Debug, Parser)]
#[command(name = "forebay-sim")]
struct Arguments {
    /// The seed, or the first of several
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds to run
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Operations of publishers, clients and fate in each run
    #[arg(long, default_value_t = 400)]
    steps: u64,
    /// Print everything that happens
    #[arg(long)]
    trace: bool,
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
    let mut failed = 0u64;
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let outcome = forebay_sim::run(seed, arguments.steps, arguments.trace);
        out.write_all(outcome.trace.as_bytes())?;
        match outcome.result {
            Ok(report) if arguments.seeds == 1 => writeln!(out, "seed {seed}: {report:?}")?,
            Ok(_) => {}
            Err(error) => {
                failed += 1;
                let replay = forebay_sim::replay(seed, arguments.steps);
                writeln!(out, "seed {seed}: {error}\n  {replay}")?;
            }
        }
    }
    writeln!(out, "{failed} of {} seeds failed", arguments.seeds)?;
    Ok(failed)
}
