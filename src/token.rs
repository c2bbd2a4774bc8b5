//! `forebay token`: prints a token made with the development keys, and nothing else.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use forebay_handlers::auth::{DevKeys, Grant, Minter, Role};

use crate::names::{parse_channel_pattern, parse_org};
use crate::{Failure, time};

/// What to print.
#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    /// What the token is for
    #[arg(value_name = "publish|subscribe")]
    role: TokenRole,

    /// The org that it covers
    #[arg(long, env = "FOREBAY_ORG", value_name = "ORG", value_parser = parse_org)]
    org: String,

    /// A channel that it covers; repeatable; a name that ends in * covers a prefix [default: every channel of the org]
    #[arg(long, env = "FOREBAY_CHANNEL", value_name = "CHANNEL", value_delimiter = ' ', value_parser = parse_channel_pattern)]
    channel: Vec<String>,

    /// How long it lasts: 90s, 15m, 1h, 7d
    #[arg(long, env = "FOREBAY_TTL", value_name = "TIME", default_value = "1h", value_parser = time::parse_ttl)]
    ttl: Duration,

    /// Where the development keys are, or will be made
    #[arg(long, env = "FOREBAY_DATA_DIR", value_name = "DIR", default_value = "./forebay-data")]
    data_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TokenRole {
    Publish,
    Subscribe,
}

/// Prints the token.
pub(crate) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let (role, every): (Role, &[&str]) = match args.role {
        TokenRole::Publish => (Role::Publisher, &[]),
        TokenRole::Subscribe => (Role::Subscriber, &["*"]),
    };
    let named: Vec<&str> = args.channel.iter().map(String::as_str).collect();
    let channels = if named.is_empty() { every } else { &named };
    let keys = DevKeys::load_or_create(&args.data_dir)?;
    let (ttl_s, now_s) = (args.ttl.as_secs(), time::unix_s());
    let grant = Grant { org: Some(&args.org), channels, ttl_s, now_s };
    let token = Minter::new(keys.minter_config(role))?.mint(&grant)?;
    Ok(writeln!(std::io::stdout(), "{token}")?)
}
