//! `forebay-chaos`: runs the full scenarios, and prints what they came to.

mod arguments;

use std::io::Write;
use std::process::ExitCode;

use arguments::FireArguments;
use clap::{Parser, Subcommand};
use forebay_chaos::{Herd, SlowReaders, run_herd, run_slow_readers};
use tokio::signal::unix::{SignalKind, signal};

/// Runs an edge, handlers and a store under load, and judges what every client got.
#[derive(Debug, Parser)]
#[command(name = "forebay-chaos", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    fire: FireArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hundreds of random faults in each arrangement; what is done if nothing is said
    Fire(FireArguments),
    /// A thousand clients that read a byte a second on a busy channel, then nothing, then all
    Slow(SlowReaders),
    /// The edge is killed with ten thousand clients, and all come back at once
    Herd(Herd),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { command, fire } = Arguments::parse();
    let work = async {
        match command.unwrap_or(Command::Fire(fire)) {
            Command::Fire(fire) => fire.run_all().await,
            Command::Slow(slow) => {
                run_slow_readers(&slow).await.map(|report| (report.to_string(), report.is_clean()))
            }
            Command::Herd(herd) => {
                run_herd(&herd).await.map(|report| (report.to_string(), report.is_clean()))
            }
        }
    };
    // What was started, mounted and laid goes with the work.
    let outcome = tokio::select! {
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => return ExitCode::FAILURE,
        () = told_to_end() => return ExitCode::FAILURE,
    };
    match outcome {
        Ok((text, is_clean)) => {
            let printed = std::io::stdout().write_all(text.as_bytes());
            if printed.is_ok() && is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for SIGTERM.
async fn told_to_end() {
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => _ = terminate.recv().await,
        Err(_) => std::future::pending().await,
    }
}
