//! `forebay-connmgr`: the edge alone, in Condure's place.

use std::process::ExitCode;

use clap::Parser;
use forebay_connmgr::config::ConnmgrCommand;

fn main() -> ExitCode {
    forebay_connmgr::run(&ConnmgrCommand::parse().args)
}
