//! `peer-handler`: the handler behind the edges that are compared; see the library's `peer`.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use forebay_bench::BenchError;
use forebay_bench::peer::{Control, Hold, Role, hello_req, hello_stream};

/// A ZHTTP handler that is never the bottleneck
#[derive(Parser)]
struct Options {
    /// hello-stream and hello-req answer requests; hold holds event streams and WebSockets
    #[arg(long)]
    mode: Role,

    /// Base spec of the edge's sockets of stream mode, or the address of its socket of req mode
    #[arg(long)]
    spec: String,

    /// In mode hold: where POST /PATH publishes to those who asked for that path; port 0 takes a free one, which is printed
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    control: SocketAddr,
}

fn run(options: &Options) -> Result<(), BenchError> {
    let context = zmq::Context::new();
    match options.mode {
        Role::HelloStream => hello_stream(&context, &options.spec),
        Role::HelloReq => hello_req(&context, &options.spec),
        Role::Hold => {
            let control = Control::listen(options.control)?;
            println!("listening on {}", control.address()?);
            Hold::connect(&context, &options.spec, control)?.run()
        }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer-handler: {error}");
            ExitCode::FAILURE
        }
    }
}
