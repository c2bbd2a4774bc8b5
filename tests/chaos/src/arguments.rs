//! The options of `forebay-chaos fire`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use forebay_chaos::{
    ChaosError, Disruption, Ended, Fire, FireReport, Kind, Report, Scenario, StoreKind, markdown,
    run, table,
};

/// Sets arrangements of an edge, two handlers and a store on fire, and judges what every client got. With --plain, --signal or
/// --redis-outage it runs the plain scenarios instead, with one kind of fault each.
#[derive(Debug, Args)]
pub(crate) struct FireArguments {
    /// The binary of forebay
    #[arg(long, env = "FOREBAY_BIN", default_value = "target/release/forebay")]
    forebay: PathBuf,
    /// An arrangement; repeatable [default: all]
    #[arg(long, value_enum)]
    store: Vec<StoreName>,
    /// Faults in each arrangement
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    faults: u64,
    /// Decides which faults, and when [default: of the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults whose name has this in it; repeatable
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// No wire: handlers and store are on the host of the edge
    #[arg(long)]
    no_wire: bool,
    /// Servers that replicate take writes only while a replica keeps up: min-replicas-to-write 1
    #[arg(long)]
    min_replicas: bool,
    /// A Python that has pyzmq, for peers that stall; without it these are left out
    #[arg(long, default_value = ".venv/bin/python")]
    python: PathBuf,
    /// Where the report is written as well, as Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The plain scenarios: handlers killed, handlers stopped, Redis away
    #[arg(long)]
    plain: bool,
    /// The plain scenario that ends handlers by this signal; repeatable
    #[arg(long, value_name = "SIGNAL", value_enum)]
    signal: Vec<SignalName>,
    /// The plain scenario that stops Redis for 5 seconds
    #[arg(long)]
    redis_outage: bool,
    /// How long a plain scenario takes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Clients with event streams [default: 200; 300 in plain scenarios]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=5000))]
    clients: Option<u64>,
    /// The same on WebSockets [default: as many]
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=5000))]
    sockets: Option<u64>,
    /// Channels [default: 20; 30 in plain scenarios]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    channels: Option<u64>,
    /// Events a second, of all channels together [default: 100; 300 in plain scenarios]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    rate: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreName {
    Redis,
    Sentinel,
    Cluster,
    Embedded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
enum SignalName {
    Kill,
    Term,
}

/// One handler is ended each time that this has passed, in plain scenarios.
const HANDLER_EVERY: Duration = Duration::from_secs(2);

/// How long both handlers are away there.
const HANDLERS_DOWN: Duration = Duration::from_secs(3);

/// How long Redis is away there.
const STORE_DOWN: Duration = Duration::from_secs(5);

impl StoreName {
    fn kind(self) -> StoreKind {
        match self {
            StoreName::Redis => StoreKind::Redis,
            StoreName::Sentinel => StoreKind::Sentinel,
            StoreName::Cluster => StoreKind::Cluster,
            StoreName::Embedded => StoreKind::Embedded,
        }
    }
}

impl FireArguments {
    /// Runs all that is asked for. The report, and whether nothing was wrong.
    pub(crate) async fn run_all(&self) -> Result<(String, bool), ChaosError> {
        let is_plain = self.plain || !self.signal.is_empty() || self.redis_outage;
        let (text, is_clean) = if is_plain { self.run_plain().await? } else { self.burn().await? };
        if let Some(file) = &self.report {
            std::fs::write(file, &text).map_err(ChaosError::Setup)?;
        }
        Ok((text, is_clean))
    }

    async fn burn(&self) -> Result<(String, bool), ChaosError> {
        let seed = self.seed.unwrap_or_else(seed_of_clock);
        let mut reports: Vec<FireReport> = Vec::new();
        for store in self.stores() {
            eprintln!("{}: {} faults, seed {seed} …", store.name(), self.faults);
            let report = self.fire(store, seed).run().await?;
            eprint!("{}", markdown(std::slice::from_ref(&report)));
            reports.push(report);
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let faults = self.faults;
        let text = format!(
            "`scripts/chaos --faults {faults} --seed {seed}`, {processors} processors\n\n{}",
            markdown(&reports)
        );
        Ok((text, reports.iter().all(FireReport::is_clean)))
    }

    fn stores(&self) -> Vec<StoreKind> {
        let all = StoreName::value_variants();
        let wanted = if self.store.is_empty() { all } else { &self.store };
        wanted.iter().map(|name| name.kind()).collect()
    }

    fn fire(&self, store: StoreKind, seed: u64) -> Fire {
        let is_wanted = |kind: &Kind| self.only.iter().any(|text| kind.name().contains(text));
        Fire {
            forebay: self.forebay.clone(),
            store,
            faults: self.faults,
            seed,
            wire: !self.no_wire,
            min_replicas: self.min_replicas,
            python: self.python.exists().then(|| self.python.clone()),
            kinds: Kind::ALL.into_iter().filter(is_wanted).collect(),
            clients: count(self.clients.unwrap_or(200)),
            sockets: count(self.sockets.or(self.clients).unwrap_or(200)),
            channels: count(self.channels.unwrap_or(20)),
            events_per_second: self.rate.unwrap_or(100),
        }
    }

    async fn run_plain(&self) -> Result<(String, bool), ChaosError> {
        let mut reports = Vec::new();
        for disruption in self.disruptions() {
            let scenario = self.scenario(disruption);
            eprintln!("{}: {} s …", scenario.name(), self.seconds);
            reports.push(run(&scenario).await?);
        }
        Ok((table(&reports), reports.iter().all(Report::is_clean)))
    }

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
        Scenario {
            forebay: self.forebay.clone(),
            clients: count(self.clients.unwrap_or(300)),
            sockets: count(self.sockets.or(self.clients).unwrap_or(300)),
            channels: count(self.channels.unwrap_or(30)),
            events_per_second: self.rate.unwrap_or(300),
            duration: Duration::from_secs(self.seconds),
            disruption,
        }
    }
}

fn count(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// A seed that nobody has chosen.
fn seed_of_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since_1970| since_1970.as_secs())
}
