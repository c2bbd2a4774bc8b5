//! The README tells every option: its blocks are the output of `--help`.
//!
//! After a change of an option run `UPDATE_README=1 cargo test --test readme`.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

const COMMANDS: [&str; 10] = [
    "up",
    "connmgr",
    "handler",
    "token",
    "publish",
    "tail",
    "load idle",
    "load fan",
    "load publish",
    "load requests",
];

/// The help of a command, as it is without any environment.
fn help(command: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(command.split(' '))
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    assert!(output.status.success(), "{command} --help");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The README with the block below each command's heading replaced.
fn updated(readme: &str) -> String {
    let mut out = String::new();
    let mut lines = readme.lines().peekable();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(command) = line.strip_prefix("### forebay ") else { continue };
        assert!(COMMANDS.contains(&command), "{command}");
        while lines.next_if(|line| !line.starts_with('#')).is_some() {}
        out.push_str(&format!("\n```\n{}```\n\n", help(command)));
    }
    out
}

#[test]
fn the_readme_tells_every_option() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    for command in COMMANDS {
        assert!(readme.contains(&format!("\n### forebay {command}\n")), "{command} is missing");
    }
    let updated = updated(&readme);
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(&path, &updated).unwrap();
        return;
    }
    assert!(
        readme == updated,
        "README.md is out of date: UPDATE_README=1 cargo test --test readme"
    );
}
