//! The life of an edge process: configuration, log, signals, exit code.

use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::config::{Config, ConnmgrArgs};
use crate::debug_socket;
use crate::edge::Edge;
use crate::log::{self, Causes};

/// How often it is looked whether a thread of the edge has failed, and the edge is tended.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Runs an edge until a signal ends it: SIGTERM, SIGINT or SIGQUIT drain it, a second one ends it at
/// once. The exit code is 0 after a drain, 1 if the edge failed or could not start. Why is a line of the log, also if it
/// is the configuration: standard output is what Pushpin's runner shows of its children.
pub fn run(args: &ConnmgrArgs) -> ExitCode {
    let tap = match log::init_with_tap(args.log_level()) {
        Ok(tap) => tap,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let config = match Config::resolve(args) {
        Ok(config) => config,
        Err(error) => return failure(&error),
    };
    if config.sizes {
        print_sizes();
        return ExitCode::SUCCESS;
    }
    tracing::info!("starting...");
    // Before anything is bound, so that no signal finds the edge without a handler for it.
    let signals = match Signals::new([SIGTERM, SIGINT, SIGQUIT]) {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!("cannot handle signals: {error}");
            return ExitCode::FAILURE;
        }
    };
    let serve_debug = |spec| debug_socket::serve(spec, tap);
    // Dropped last, so that those who follow get the last words.
    let _debug_socket = match config.debug_socket.as_ref().map(serve_debug).transpose() {
        Ok(debug_socket) => debug_socket,
        Err(error) => return failure(&error),
    };
    match Edge::start(&config) {
        Ok(edge) => serve(edge, signals),
        Err(error) => failure(&error),
    }
}

fn failure(error: &dyn std::error::Error) -> ExitCode {
    tracing::error!("{}", Causes(error));
    ExitCode::FAILURE
}

fn serve(edge: Edge, mut signals: Signals) -> ExitCode {
    tracing::info!("started");
    let (signalled, signal) = mpsc::channel();
    std::thread::spawn(move || {
        let mut signals = signals.forever();
        signals.next();
        // If nobody takes it, the edge is ending already.
        let _ = signalled.send(());
        signals.next();
        std::process::exit(1);
    });
    while let Err(RecvTimeoutError::Timeout) = signal.recv_timeout(WATCH_INTERVAL) {
        if edge.has_failed() {
            // An edge without its handlers, or without some of its clients, is none. Whoever watches
            // the process starts it again.
            tracing::error!("a thread has ended: {}", edge.into_failure());
            return ExitCode::FAILURE;
        }
        edge.tend();
    }
    tracing::info!("stopping...");
    match edge.drain() {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn print_sizes() {
    let (member, hold) = forebay_core::hold::Members::entry_bytes();
    println!("connection: {} bytes", forebay_core::worker::Worker::connection_bytes());
    println!("hold: {hold} bytes");
    println!("member: {member} bytes");
}
