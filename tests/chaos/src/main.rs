//! `forebay-chaos`: runs the full scenarios, and prints what they came to.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use forebay_chaos::{ChaosError, Disruption, Ended, Report, Scenario, run, table};

/// Runs an edge, two handlers and Redis under load, breaks them, and judges what every client got. Without
/// --signal and --redis-outage it runs all three scenarios.
#[derive(Debug, Parser)]
#[command(name = "forebay-chaos")]
struct Arguments {
    /// The binary of forebay
    #[arg(long, env = "FOREBAY_BIN", default_value = "target/release/forebay")]
    forebay: PathBuf,
    /// End handlers by this signal; repeatable
    #[arg(long, value_name = "SIGNAL", value_enum)]
    signal: Vec<SignalName>,
    /// Stop Redis for 5 seconds
    #[arg(long)]
    redis_outage: bool,
    /// How long events are published and things are broken
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Clients
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=5000))]
    clients: u64,
    /// Channels
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1000))]
    channels: u64,
    /// Events a second, of all channels together
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum SignalName {
    Kill,
    Term,
}

/// One handler is ended each time that this has passed.
const HANDLER_EVERY: Duration = Duration::from_secs(2);

/// How long both handlers are away.
const HANDLERS_DOWN: Duration = Duration::from_secs(3);

/// How long Redis is away.
const STORE_DOWN: Duration = Duration::from_secs(5);

impl Arguments {
    fn disruptions(&self) -> Vec<Disruption> {
        let is_all = self.signal.is_empty() && !self.redis_outage;
        let handlers =
            |how| Disruption::Handlers { how, every: HANDLER_EVERY, both_down: HANDLERS_DOWN };
        let signals = [(SignalName::Kill, Ended::Killed), (SignalName::Term, Ended::Terminated)];
        let signals = signals.into_iter().filter(|(name, _)| is_all || self.signal.contains(name));
        let store = (is_all || self.redis_outage).then_some(Disruption::Store { down: STORE_DOWN });
        signals.map(|(_, how)| handlers(how)).chain(store).collect()
    }

    fn scenario(&self, disruption: Disruption) -> Scenario {
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
        Scenario {
            forebay: self.forebay.clone(),
            clients: count(self.clients),
            channels: count(self.channels),
            events_per_second: self.rate,
            duration: Duration::from_secs(self.seconds),
            disruption,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run_all(&Arguments::parse()).await {
        Ok(reports) => {
            let printed = std::io::stdout().write_all(table(&reports).as_bytes());
            if printed.is_ok() && reports.iter().all(Report::is_clean) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run_all(arguments: &Arguments) -> Result<Vec<Report>, ChaosError> {
    let mut reports = Vec::new();
    for disruption in arguments.disruptions() {
        let scenario = arguments.scenario(disruption);
        eprintln!("{}: {} s …", scenario.name(), arguments.seconds);
        reports.push(run(&scenario).await?);
    }
    Ok(reports)
}
