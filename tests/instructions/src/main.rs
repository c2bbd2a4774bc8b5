//! `forebay-instructions PATH COUNT`: sets a path up and walks it so many times, for whoever counts instructions from the
//! outside. `forebay-instructions` names all paths, each with the steps it is prepared for and what one of them is.

use std::process::ExitCode;

use forebay_instructions::{SUBJECTS, Subject};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(|argument| &**argument).collect();
    match arguments[..] {
        [] => {
            for subject in SUBJECTS {
                println!("{}\t{}\t{}", subject.name, subject.steps_max, subject.what);
            }
            ExitCode::SUCCESS
        }
        [name, count] => match (Subject::named(name), count.parse()) {
            (Some(subject), Ok(count)) if count <= subject.steps_max => run(subject, count),
            (Some(subject), _) => {
                refuse(&format!("COUNT is a number from 0 to {}", subject.steps_max))
            }
            (None, _) => refuse(&format!("there is no path {name}")),
        },
        _ => refuse("usage: forebay-instructions [PATH COUNT]"),
    }
}

/// Walks a path, and ends without taking down what was set up: that is no part of it.
fn run(subject: &Subject, count: usize) -> ! {
    let mut ready = subject.ready();
    ready.walk(count);
    ready.check();
    std::process::exit(0)
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("forebay-instructions: {why}");
    ExitCode::from(2)
}
