//! What channels may take, as flags.

use std::time::Duration;

use clap::Args;
use forebay_handlers::roles::Limits;
use forebay_handlers::store::Rate;

use crate::time::parse_ttl;

/// What channels may take; the same for all orgs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Channels")]
pub(crate) struct LimitArgs {
    /// Events that a channel takes in a second; more are answered with 429. 0 is no limit
    #[arg(long, env = "FOREBAY_CHANNEL_RATE", value_name = "N", default_value_t = 20)]
    channel_rate: u32,

    /// Newest events of a channel that are kept; memory of the store, up to 16 KiB each
    #[arg(long, env = "FOREBAY_HISTORY_MAX", value_name = "N", default_value_t = 1200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    history_max: u32,

    /// A channel is ended that long after its last event
    #[arg(long, env = "FOREBAY_IDLE_TTL", value_name = "TIME", default_value = "120s", value_parser = parse_ttl)]
    idle_ttl: Duration,

    /// The history of an ended channel can be read that long
    #[arg(long, env = "FOREBAY_END_TTL", value_name = "TIME", default_value = "120s", value_parser = parse_ttl)]
    end_ttl: Duration,

    /// Subscribers hear at least that often that they are connected; proxies close what is silent for longer
    #[arg(long, env = "FOREBAY_KEEP_ALIVE", value_name = "TIME", default_value = "15s", value_parser = parse_ttl)]
    keep_alive: Duration,
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> Limits {
        let rate = Rate { messages: self.channel_rate, per_ms: 1000 };
        Limits {
            rate: (self.channel_rate > 0).then_some(rate),
            history_max: self.history_max,
            idle_ttl: self.idle_ttl,
            end_ttl: self.end_ttl,
            keep_alive: self.keep_alive,
            ..Limits::default()
        }
    }
}
