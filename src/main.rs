//! The `forebay` command: run it all, run its parts, publish and listen.

#![forbid(unsafe_code)]

mod client;
mod handler;
mod keys;
mod limits;
mod load;
mod names;
mod publish;
mod tail;
mod time;
mod token;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use forebay_connmgr::config::ConnmgrArgs;

/// Delivers streams to browsers, through restarts: an edge that holds the clients, stateless handlers behind it, and a
/// store that keeps every event.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything in one process: edge, handlers, and an embedded store
    Up(up::UpArgs),
    /// Run the edge alone: it owns the clients' sockets and speaks ZHTTP to handlers
    Connmgr(Box<ConnmgrArgs>),
    /// Run handlers: publish, fanout, cleanup, or any of them
    Handler(handler::HandlerArgs),
    /// Print a token for publishers or subscribers
    Token(token::TokenArgs),
    /// Publish each line of standard input as an event
    Publish(publish::PublishArgs),
    /// Print the events of channels as they come
    Tail(tail::TailArgs),
    /// Measure a server: connections, subscribers, publishers, requests; HTTP without TLS
    Load(load::LoadArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Connmgr(args) => return forebay_connmgr::run(&args),
        Command::Up(args) => up::run(&args),
        Command::Handler(args) => handler::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Load(args) => load::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

/// Why a command ends without having done its work, and the exit code that says so.
#[derive(Debug)]
struct Failure {
    text: String,
    code: u8,
}

impl Failure {
    /// What was asked for makes no sense: the user's to mend.
    fn usage(text: impl Into<String>) -> Self {
        Failure { text: text.into(), code: 2 }
    }
}

/// What went wrong while the work was done, with all that caused it.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Failure { text, code: 1 }
    }
}
