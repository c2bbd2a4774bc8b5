//! How the commands are called: their help, their errors, their environment, their keys.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use forebay_handlers::auth::{
    DevKeys, Grant, MintKey, Minter, MinterConfig, Role, SecretText, Verifier,
};
use serde_json::Value;
use support::Up;
use support::process::{Process, forebay};
use support::up::{DataDir, ORG};

/// Seconds since 1970.
fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Options and their help, each as one line.
fn options(help: &str) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    for line in help.lines() {
        let text = line.trim();
        // Deeper in, it is help that names another option.
        let is_option = line.starts_with("      --") || line.starts_with("  -h");
        if is_option {
            options.push(String::new());
        } else if !line.starts_with(' ') && !text.is_empty() {
            // A heading: what is below it belongs to no option above.
            options.push(String::new());
        }
        if let Some(option) = options.last_mut() {
            option.push_str(text);
            option.push(' ');
        }
    }
    options.retain(|option| option.starts_with("--"));
    options
}

#[test]
fn the_help_of_each_command_is_complete() {
    let promised: [(&str, &[&str]); 6] = [
        ("up", &["--listen", "--data-dir", "--redis", "--run-dir"]),
        (
            "connmgr",
            &[
                "--listen",
                "--workers",
                "--zclient-stream",
                "--route",
                "--handler-wait",
                "--drain-timeout",
            ],
        ),
        ("handler", &["--role", "--edge", "--redis", "--id"]),
        ("token", &["--org", "--channel", "--ttl", "--data-dir"]),
        ("publish", &["--org", "--channel", "--url", "--token", "--no-end"]),
        ("tail", &["--org", "--channel", "--from", "--url", "--token", "--json"]),
    ];
    let overview = Process::run(forebay().arg("--help")).good();
    for (command, flags) in promised {
        assert!(overview.contains(&format!("\n  {command} ")), "{overview}");
        let help = Process::run(forebay().args([command, "--help"])).good();
        assert!(help.contains(&format!("Usage: forebay {command}")), "{help}");
        let options = options(&help);
        for flag in flags {
            assert!(
                options.iter().any(|option| option.starts_with(&format!("{flag} "))),
                "{command} {flag}"
            );
        }
        for option in options {
            assert!(option.contains("[env: "), "{command} {option}");
        }
    }
    assert_eq!(Process::run(forebay().arg("--version")).good(), "forebay 0.1.0\n");
}

#[test]
fn what_is_wrong_names_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (data, none) = (dir.path().join("data"), dir.path().join("none"));
    let (data, none) = (data.to_str().unwrap(), none.to_str().unwrap());
    let handler = "handler --role publish,fanout --edge ipc://x --redis redis://127.0.0.1:1/";
    let rows = [
        ("fly", "'fly'"),
        ("", "Usage: forebay"),
        ("up --fast", "'--fast'"),
        ("up more", "'more'"),
        ("up --listen here", "'here' for '--listen"),
        ("up --fsync sometimes", "'sometimes' for '--fsync"),
        ("up --log-level 9", "9 is not in 0..=4"),
        ("up --history-max 0", "0 is not in 1.."),
        ("up --channel-rate -1", "'-1'"),
        ("up --idle-ttl soon", "'soon' for '--idle-ttl"),
        ("up --data-dir DATA --redis nonsense", "--redis: the Redis address is not usable"),
        ("up --data-dir /proc/none", "--data-dir /proc/none: "),
        ("up --data-dir DATA --run-dir /proc/none", "--run-dir /proc/none: "),
        ("up --data-dir DATA --gateway-jwt-issuer me", "GATEWAY_JWT_PUBLIC_KEY: is required"),
        ("up --data-dir DATA --gateway-jwt-public-key me", "GATEWAY_JWT_PUBLIC_KEY: is not a key"),
        ("connmgr --workers many", "'many' for '--workers"),
        ("connmgr --sing", "'--sing'"),
        ("handler", "--role"),
        ("handler --role cook --edge ipc://x --redis redis://x", "'cook' for '--role"),
        ("HANDLER --sing", "'--sing'"),
        ("HANDLER --requests-max x", "'x' for '--requests-max"),
        ("HANDLER", "GATEWAY_JWT_PUBLIC_KEY"),
        ("HANDLER --gateway-jwt-secret 12345678901234567890123456789012", "PUBLISH_JWT_SECRET"),
        ("HANDLER --publish-jwt-secret 12345678901234567890123456789012", "GATEWAY_JWT_PUBLIC_KEY"),
        ("HANDLER --data-dir DATA --edge x", "--edge: "),
        ("HANDLER --data-dir DATA --edge ipc://x", "--edge: "),
        ("HANDLER --data-dir DATA --id ", "--id: "),
        ("handler --role fanout --edge ipc://x --redis x --data-dir DATA", "--redis: "),
        ("token", "<publish|subscribe>"),
        ("token dance --org 1", "'dance'"),
        ("token publish", "--org"),
        ("token publish --org a.b", "'a.b' for '--org"),
        ("token publish --org 1 --channel a*b", "'a*b' for '--channel"),
        ("token publish --org 1 --ttl 0", "'0' for '--ttl"),
        ("publish --org 1", "--channel"),
        ("publish --org a/b --channel c", "'a/b' for '--org"),
        ("publish --org 1 --channel a*", "'a*' for '--channel"),
        ("publish --org 1 --channel c --url 127.0.0.1:8000", "'127.0.0.1:8000' for '--url"),
        ("publish --org 1 --channel c --data-dir NONE", "--token"),
        ("tail --org 1", "--channel"),
        ("tail --org a/b --channel c", "'a/b' for '--org"),
        ("tail --org 1 --channel a/b", "'a/b' for '--channel"),
        ("tail --org 1 --channel c --url ftp://x", "'ftp://x' for '--url"),
        ("tail --org 1 --channel c --data-dir NONE", "--token"),
        ("tail --org 1 --channel c --loud", "'--loud'"),
    ];
    for (line, named) in rows {
        let line = line.replace("HANDLER", handler).replace("DATA", data).replace("NONE", none);
        let words = if line.is_empty() { Vec::new() } else { line.split(' ').collect() };
        let ended = Process::run(forebay().args(words));
        assert_eq!(ended.code(), 2, "{line}: {ended:?}");
        assert!(ended.stderr.contains(named), "{line}: {}", ended.stderr);
    }
    // What the edge refuses by itself is a line of its log, as Condure's is.
    let ended = Process::run(forebay().args(["connmgr", "--workers", "0"]));
    assert_eq!((ended.code(), &*ended.stderr), (1, ""));
    assert!(ended.stdout.starts_with("[ERR] "), "{ended:?}");
    assert!(ended.stdout.ends_with("] --workers=0: must be 1 to 1024\n"), "{ended:?}");
    // `up` makes the edge's arguments itself, and says it its own way.
    let mut up = forebay();
    up.args(["up", "--data-dir", data]).env("FOREBAY_WORKERS", "0");
    let ended = Process::run(&mut up);
    let text = "error: --workers=0: must be 1 to 1024\n";
    assert_eq!((ended.code(), &*ended.stderr), (2, text));
    // A client makes no keys.
    assert!(!std::path::Path::new(none).exists());
    let ended =
        Process::run(forebay().args(["up", "--data-dir", data]).env("FOREBAY_WORKERS", "x"));
    let text = "error: invalid value 'x' for '--workers <N>': invalid digit found in string\n";
    assert_eq!((ended.code(), &*ended.stderr), (2, text));
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let up = Up::start();
    let dir = DataDir::new();
    let mut second = forebay();
    second.args(["up", "--listen", &up.address, "--data-dir"]).arg(dir.path());
    let ended = Process::run(&mut second);
    let text = format!("error: cannot listen on {}: address in use\n", up.address);
    assert_eq!((ended.code(), ended.stderr), (1, text));
}

#[test]
fn the_environment_is_as_good_as_flags() {
    let dir = DataDir::new();
    let variables = [
        ("FOREBAY_DATA_DIR", dir.path().to_str().unwrap()),
        ("FOREBAY_LISTEN", "127.0.0.1:0"),
        ("FOREBAY_CHANNEL_RATE", "0"),
        ("FOREBAY_HISTORY_MAX", "4"),
        ("FOREBAY_LOG_LEVEL", "0"),
    ];
    let process = Process::spawn(forebay().arg("up").envs(variables));
    // At this level the first line is this one.
    let first = process.line();
    let address =
        first.strip_prefix("ready http://").unwrap_or_else(|| panic!("{first}")).to_owned();
    let up = Up { process, address, dir: dir.clone() };

    let url = up.url();
    let place = [
        ("FOREBAY_DATA_DIR", dir.path().to_str().unwrap()),
        ("FOREBAY_URL", &url),
        ("FOREBAY_ORG", "1"),
    ];
    let command = |name: &str, variables: &[(&str, &str)]| {
        let mut command = forebay();
        command.arg(name).envs(place).envs(variables.iter().copied());
        command
    };
    let open = [("FOREBAY_CHANNEL", "a"), ("FOREBAY_NO_END", "true")];
    Process::run_with(&mut command("publish", &open), "1\n2\n3\n4\n5\n").good();
    let values: Vec<_> =
        up.all_events("a").into_iter().map(|(_, data)| data["payload"]["value"].clone()).collect();
    assert_eq!(values, ["2", "3", "4", "5"]);
    // A flag wins.
    Process::run_with(command("publish", &open).args(["--channel", "b"]), "b\n").good();
    let (from_a, _) = up.all_events("a").pop().unwrap();
    up.end("a");
    let token = up.dir.token(Role::Subscriber, ORG, &["a"]);
    let from = [
        ("FOREBAY_CHANNEL", "a"),
        ("FOREBAY_FROM", &from_a),
        ("FOREBAY_JSON", "1"),
        ("FOREBAY_TOKEN", &token),
    ];
    let line = Process::run(&mut command("tail", &from)).good();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["data"]["phase"], "PHASE_END");
    up.end("b");
    let both = [("FOREBAY_CHANNEL", "a b")];
    assert_eq!(Process::run(&mut command("tail", &both)).good().lines().count(), 4 + 3);

    let variables = [("FOREBAY_CHANNEL", "a b*"), ("FOREBAY_TTL", "7d")];
    let token = Process::run(command("token", &variables).arg("publish")).good();
    let keys = DevKeys::load_or_create(dir.path()).unwrap();
    let verifier = Verifier::new(keys.publisher_config()).unwrap();
    let claims = verifier.authorize(token.trim(), "1", &["a", "bb"], now_s() + 6 * 86_400).unwrap();
    assert!(claims.authorize("1", &["c"]).is_err());
}

#[test]
fn with_keys_of_its_own_it_prints_where_tokens_go() {
    let (readers, publishers) =
        ("a secret of readers, long enough", "a secret of publishers, long enough");
    let dir = DataDir::new();
    let mut command = forebay();
    command.args(["up", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
    let secrets = [
        ("FOREBAY_GATEWAY_JWT_SECRET", readers),
        ("PUBLISH_JWT_SECRET", publishers),
        ("PUBLISH_JWT_ISSUER", "me"),
    ];
    let up = Process::spawn(command.envs(secrets));
    let address = up.line_with("ready http://");
    let (subscribe, publish) = (up.line_with("  curl "), up.line_with("  curl "));
    assert_eq!(up.line_with("Put"), " tokens of your own into SUBSCRIBE_TOKEN and PUBLISH_TOKEN.");
    assert!(!dir.join("keys").exists());

    let mint = |role, secret: &str, issuer: Option<&str>| {
        let key = MintKey::Secret(SecretText::new(secret.to_owned()));
        let minter = Minter::new(MinterConfig {
            role,
            issuer: issuer.map(str::to_owned),
            audience: None,
            key,
        });
        let grant = Grant { org: Some("1"), channels: &["demo"], ttl_s: 600, now_s: now_s() };
        minter.unwrap().mint(&grant).unwrap()
    };
    let tokens = [
        ("SUBSCRIBE_TOKEN", mint(Role::Subscriber, readers, None)),
        ("PUBLISH_TOKEN", mint(Role::Publisher, publishers, Some("me"))),
    ];
    let bash = |line: &str| {
        let mut bash = Command::new("bash");
        Process::spawn(bash.args(["-c", &format!("curl {line}")]).envs(tokens.clone()))
    };
    let reader = bash(&subscribe);
    let id = bash(&publish).wait().good();
    assert_eq!(reader.line_with("id: "), id);
    // The issuer counts.
    let other = mint(Role::Publisher, publishers, Some("you"));
    let refused = support::post("/publish/1/demo").bearer(&other).send(&address);
    assert_eq!(refused.answer(), (401, "Token validation failed"));
}
