//! `bare hello|accept|fan`: the limits; see the library's `bare`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use forebay_bench::BenchError;
use forebay_bench::bare::{Bare, Kind};

/// A server that does as little as a server can, in one thread
#[derive(Parser)]
struct Options {
    /// What it does: hello answers requests, accept holds connections, fan writes what is POSTed to all of them
    kind: Kind,

    /// Where it listens; port 0 takes a free one, which is printed
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

fn run(options: &Options) -> Result<(), BenchError> {
    let bare = Bare::listen(options.kind, options.listen)?;
    println!("listening on {}", bare.address()?);
    bare.run()
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare: {error}");
            ExitCode::FAILURE
        }
    }
}
