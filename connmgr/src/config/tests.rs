//! From the command line and the environment to a checked configuration.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use forebay_core::http1::HeadLimits;

use super::*;
use crate::bus::{ReqSpec, Spec};

/// The configuration of a command line, or the text of what refuses it: clap's first line, or ours.
fn resolve(line: &[&str]) -> Result<Config, String> {
    let words = ["forebay-connmgr"].iter().chain(line);
    let command = ConnmgrCommand::try_parse_from(words).map_err(|error| {
        assert_eq!(error.exit_code(), 2);
        error.to_string().lines().next().unwrap_or_default().to_owned()
    })?;
    Config::resolve(&command.args).map_err(|error| error.to_string())
}

fn tcp(address: &str) -> ListenSpec {
    ListenSpec {
        address: ListenAddress::Tcp(address.parse().unwrap()),
        mode: Mode::Stream,
        tls: None,
        is_shared: false,
    }
}

fn unix(unix: UnixSpec) -> ListenSpec {
    let address = ListenAddress::Unix(unix);
    ListenSpec { address, mode: Mode::Stream, tls: None, is_shared: false }
}

fn req(spec: ListenSpec) -> ListenSpec {
    ListenSpec { mode: Mode::Req, ..spec }
}

/// What follows from an empty command line: the table of `condure.md`, section 2.
fn defaults() -> Config {
    Config {
        instance_id: "connmgr".into(),
        workers: NonZeroUsize::new(2).unwrap(),
        listen: vec![tcp("0.0.0.0:8000")],
        tls_identities_dir: ".".into(),
        compression: false,
        handlers: Handlers {
            groups: vec![vec!["ipc://client".parse().unwrap()]],
            req: Vec::new(),
            routes: Routes::default(),
            connect: false,
            ipc_file_mode: None,
        },
        limits: Limits {
            stream_maxconn: 10_000,
            req_maxconn: 100,
            buffer_size: 8192,
            body_buffer_size: 100_000,
            head: HeadLimits::default(),
            client_backlog_max: 65_536,
            tail_bytes: 262_144,
            tail_budget_bytes: 268_435_456,
        },
        timeouts: Timeouts {
            stream: Duration::from_secs(1800),
            req: Duration::from_secs(30),
            handler_wait: Duration::from_secs(10),
            drain: Duration::from_secs(3),
        },
        debug_socket: None,
        prometheus: None,
        sizes: false,
    }
}

#[test]
fn clap_finds_no_fault_with_the_options() {
    ConnmgrCommand::command().debug_assert();
}

#[test]
fn nothing_typed() {
    assert_eq!(resolve(&[]), Ok(defaults()));
    let args = ConnmgrCommand::try_parse_from(["x"]).unwrap().args.compatibility;
    assert_eq!((args.blocks_max, args.connection_blocks_max), (None, 2));
    assert_eq!(args.messages_max, 100);
    assert!(!args.deny_out_internal);
}

#[test]
fn each_option_has_its_effect() {
    type Change = fn(&mut Config);
    let table: &[(&[&str], Change)] = &[
        (&["--listen=8001"], |c| c.listen = vec![tcp("0.0.0.0:8001")]),
        (&["--listen", "[::1]:1,stream", "--listen=2"], |c| {
            c.listen = vec![tcp("[::1]:1"), tcp("0.0.0.0:2")];
        }),
        (&["--listen=/a b,local,mode=600"], |c| {
            let spec = UnixSpec { path: "/a b".into(), mode: Some(0o600), ..UnixSpec::default() };
            c.listen = vec![unix(spec)];
        }),
        (&["--workers=1024"], |c| c.workers = NonZeroUsize::new(1024).unwrap()),
        (&["--id=edge-1"], |c| c.instance_id = "edge-1".into()),
        (&["--zclient-stream=ipc://a b", "--zclient-stream", "tcp://*:5560"], |c| {
            c.handlers.groups =
                vec![vec!["ipc://a b".parse().unwrap(), "tcp://*:5560".parse().unwrap()]];
        }),
        (&["--zclient-connect"], |c| c.handlers.connect = true),
        (&["--ipc-file-mode=770"], |c| c.handlers.ipc_file_mode = Some(0o770)),
        (&["--ipc-file-mode=0"], |_| {}),
        (&["--stream-maxconn", "50000"], |c| c.limits.stream_maxconn = 50_000),
        (&["--buffer-size=16384"], |c| c.limits.buffer_size = 16_384),
        (&["--client-backlog-max=1"], |c| c.limits.client_backlog_max = 1),
        (&["--tail-bytes=0"], |c| c.limits.tail_bytes = 0),
        (&["--tail-budget-bytes=262144"], |c| c.limits.tail_budget_bytes = 262_144),
        (&["--compression"], |c| c.compression = true),
        (&["--stream-timeout=60"], |c| c.timeouts.stream = Duration::from_secs(60)),
        (&["--handler-wait=0.5"], |c| c.timeouts.handler_wait = Duration::from_millis(500)),
        (&["--handler-wait=0"], |c| c.timeouts.handler_wait = Duration::ZERO),
        (&["--drain-timeout=200ms"], |c| c.timeouts.drain = Duration::from_millis(200)),
        (&["--sizes"], |c| c.sizes = true),
        // What nobody listens for may be anything that makes sense by itself.
        (&["--req-maxconn=0"], |c| c.limits.req_maxconn = 0),
        (&["--req-maxconn=9990000"], |c| c.limits.req_maxconn = 9_990_000),
        (&["--zclient-req=ipc://client-out"], |_| {}),
        (&["--body-buffer-size=14680064"], |c| c.limits.body_buffer_size = 14_680_064),
        (&["--request-head-max=2000"], |c| {
            c.limits.head = HeadLimits { head_bytes_max: 2000, target_bytes_max: 1000 };
        }),
        (&["--request-target-max=32768"], |c| c.limits.head.target_bytes_max = 32_768),
        (&["--req-timeout=0.25"], |c| c.timeouts.req = Duration::from_millis(250)),
        (&["--debug-socket=/d,mode=600"], |c| {
            let mode = Some(0o600);
            c.debug_socket = Some(UnixSpec { path: "/d".into(), mode, ..UnixSpec::default() });
        }),
        (&["--prometheus=9090,prefix=a"], |c| {
            let address = tcp("0.0.0.0:9090").address;
            c.prometheus = Some(PrometheusSpec { address, prefix: "a".into() });
        }),
        (&["--blocks-max=20000", "--connection-blocks-max=3", "--messages-max=1"], |_| {}),
        (&["--deny-out-internal"], |_| {}),
        (&["--tls-identities-dir=/etc/x"], |c| c.tls_identities_dir = "/etc/x".into()),
        (&["--listen=443,tls,default-cert=a"], |c| {
            let tls = Some(TlsSpec { default_cert: Some("a".into()) });
            c.listen = vec![ListenSpec { tls, ..tcp("0.0.0.0:443") }];
        }),
    ];
    for (line, change) in table {
        let mut expected = defaults();
        change(&mut expected);
        assert_eq!(resolve(line), Ok(expected), "{line:?}");
    }
}

#[test]
fn an_option_may_have_several_values() {
    let several = "--listen 1 /x,local,req --zclient-stream ipc://a ipc://b --zclient-req ipc://c ipc://d --workers 4";
    let repeated = "--listen=1 --listen=/x,local,req --zclient-stream=ipc://a --zclient-stream=ipc://b \
        --zclient-req=ipc://c --zclient-req=ipc://d --workers=4";
    let words = |line: &'static str| line.split_whitespace().collect::<Vec<_>>();
    let config = resolve(&words(several)).unwrap();
    assert_eq!((config.listen.len(), config.workers.get()), (2, 4));
    assert_eq!(resolve(&words(repeated)), Ok(config));
    // The next option ends them, whatever it is.
    let config = resolve(&["--zclient-stream", "ipc://a", "--zclient-connect"]).unwrap();
    assert!(config.handlers.connect && config.handlers.groups[0].len() == 1);
    let client = "x --zserver-req ipc://a ipc://b --zserver-stream ipc://c ipc://d --workers 4";
    let args = ConnmgrCommand::try_parse_from(client.split(' ')).unwrap().args;
    assert_eq!(value::items(&args.compatibility.zserver_req, ""), ["ipc://a", "ipc://b"]);
    assert_eq!(value::items(&args.compatibility.zserver_stream, ""), ["ipc://c", "ipc://d"]);
    assert_eq!(args.listeners.workers, 4);
}

#[test]
fn log_levels_are_condures() {
    let levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE", "TRACE"];
    for (number, level) in levels.into_iter().enumerate() {
        let option = format!("--log-level={number}");
        let args = ConnmgrCommand::try_parse_from(["x", &option]).unwrap().args;
        assert_eq!(args.log_level(), level.parse::<LevelFilter>().unwrap());
    }
    assert_eq!(ConnmgrCommand::try_parse_from(["x"]).unwrap().args.log_level(), LevelFilter::INFO);
}

#[test]
fn only_the_sockets_of_listeners_are_opened() {
    type Opened<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let table: &[Opened<'_>] = &[
        (&[], &["ipc://client"], &[]),
        (&["--listen=1,req"], &[], &["ipc://client"]),
        (&["--listen=1,req", "--listen=2"], &["ipc://client"], &["ipc://client"]),
        (
            &["--listen=1,req", "--zclient-req=ipc://x", "--zclient-req", "tcp://*:1"],
            &[],
            &["ipc://x", "tcp://*:1"],
        ),
        (&["--listen=1,req", "--stream-maxconn=0", "--req-maxconn=2"], &[], &["ipc://client"]),
    ];
    for (line, stream, req) in table {
        let config = resolve(line).unwrap();
        let bus = config.bus();
        let bases: Vec<&str> = bus.groups.iter().flatten().map(Spec::base).collect();
        assert_eq!(bases, *stream, "{line:?}");
        let addresses: Vec<&str> = bus.req.iter().map(ReqSpec::address).collect();
        assert_eq!(addresses, *req, "{line:?}");
    }
    let config = resolve(&["--listen=/x,local,req", "--listen=1"]).unwrap();
    let path = UnixSpec { path: "/x".into(), ..UnixSpec::default() };
    assert_eq!(config.listen, [req(unix(path)), tcp("0.0.0.0:1")]);
}

#[test]
fn routes_make_groups() {
    let line = ["--route=/a/=ipc://a", "--route", "/a/b=ipc://b", "--route=/a/=ipc://c"];
    let handlers = resolve(&line).unwrap().handlers;
    let bases: Vec<Vec<&str>> =
        handlers.groups.iter().map(|group| group.iter().map(Spec::base).collect()).collect();
    assert_eq!(bases, [vec!["ipc://client"], vec!["ipc://a", "ipc://c"], vec!["ipc://b"]]);
    assert_eq!(handlers.routes.group(b"/a/bc"), 2);
}

#[test]
fn pushpins_runner_is_understood() {
    // Pushpin 1.36, as measured (`condure.md`, section 6.3), and with its directory of certificates.
    let config = resolve(&[
        "--log-level=2",
        "--listen=0.0.0.0:7999,stream",
        "--listen=0.0.0.0:7443,stream,tls,default-cert=default_7443",
        "--listen=/run/pushpin/local,local,stream",
        "--zclient-stream=ipc:///run/pushpin/pushpin-condure",
        "--buffer-size=8192",
        "--stream-maxconn=50000",
        "--tls-identities-dir=/etc/pushpin/runner/certs",
    ])
    .unwrap();
    assert_eq!(config.listen.len(), 3);
    assert_eq!(config.listen[1].default_cert(), Some("default_7443"));
    assert_eq!(config.tls_identities_dir.to_str(), Some("/etc/pushpin/runner/certs"));
    assert_eq!(config.limits.stream_maxconn, 50_000);
    let bus = config.bus();
    assert_eq!(bus.groups[0][0].out(), "ipc:///run/pushpin/pushpin-condure-out");
    assert_eq!(
        (bus.instance_id.as_str(), bus.connect, bus.ipc_file_mode),
        ("connmgr", false, None)
    );
}

/// What is typed, and how the error begins.
const REFUSALS: &[(&[&str], &str)] = &[
    (&["--workers=0"], "--workers=0: must be 1 to 1024"),
    (&["--workers=1025"], "--workers=1025: must be 1 to 1024"),
    (&["--id="], "--id=\"\": must have 1 to 64 bytes and no white space"),
    (&["--id=a b"], "--id=\"a b\": must have 1 to 64 bytes and no white space"),
    (&["--stream-maxconn=1"], "--stream-maxconn=1: must be at least --workers, which is 2"),
    (
        &["--stream-maxconn=9999901"],
        "--stream-maxconn=9999901: with --req-maxconn=100 must be at most 10000000",
    ),
    (&["--buffer-size=255"], "--buffer-size=255: must be 256 to 8388608"),
    (&["--req-maxconn=9990001"], "--stream-maxconn=10000: with --req-maxconn=9990001 must be"),
    (
        &["--listen=1,req", "--req-maxconn=1"],
        "--req-maxconn=1: must be at least --workers, which is 2",
    ),
    (&["--body-buffer-size=0"], "--body-buffer-size=0: must be 1 to 14680064"),
    (&["--body-buffer-size=14680065"], "--body-buffer-size=14680065: must be 1 to 14680064"),
    (&["--request-head-max=1023"], "--request-head-max=1023: must be 1024 to 1048576"),
    (&["--request-head-max=1048577"], "--request-head-max=1048577: must be 1024 to 1048576"),
    (&["--request-target-max=63"], "--request-target-max=63: must be 64 to 32768"),
    (&["--request-target-max=32769"], "--request-target-max=32769: must be 64 to 32768"),
    (&["--client-backlog-max=0"], "--client-backlog-max=0: must be 1 to 1073741824"),
    (
        &["--tail-bytes=11", "--tail-budget-bytes=10"],
        "--tail-bytes=11: must be at most --tail-budget-bytes, which is 10",
    ),
    (&["--blocks-max=19999"], "--blocks-max=19999: must be at least 20000"),
    (&["--connection-blocks-max=1"], "--connection-blocks-max=1: must be at least 2"),
    (&["--stream-timeout=0"], "--stream-timeout=0: must be more than 0 seconds"),
    (&["--req-timeout=0"], "--req-timeout=0: must be more than 0 seconds"),
    (&["--listen=80,x"], "--listen=80,x: failed to parse listen: invalid param: x"),
    (&["--listen=x,local,tls"], "--listen=x,local,tls: failed to parse listen: invalid param: tls"),
    (&["--zclient-stream=x"], "--zclient-stream=x: base spec must be ipc or tcp: \"x\""),
    (&["--zclient-req=x"], "--zclient-req=x: req spec must be ipc or tcp: \"x\""),
    (
        &["--listen=80,default-cert=a"],
        "--listen=80,default-cert=a: failed to parse listen: default-cert is without effect if there is no tls",
    ),
    (&["--route=/x"], "--route=/x: a route must be PREFIX=SPEC"),
    (&["--route=/x=y"], "--route=/x=y: base spec must be ipc or tcp: \"y\""),
    (&["--route=/x=ipc://client"], "spec ipc://client: ipc://client-out is taken by another"),
    (
        &["--route=/x=ipc://y", "--listen=80,req"],
        "--route=/x…: there is no --listen in stream mode",
    ),
    (
        &["--zclient-req=ipc://client-in", "--listen=80,req", "--listen=81"],
        "spec ipc://client-in: ipc://client-in is taken by another",
    ),
    (
        &["--zclient-stream=tcp://*:10", "--zclient-stream=tcp://*:12"],
        "spec tcp://*:12: tcp://*:12 is taken by another",
    ),
    (&["--zserver-stream=ipc://x"], "client mode (--zserver-stream) is not supported yet"),
    (&["--zserver-req=ipc://x"], "client mode (--zserver-req) is not supported yet"),
    (&["--zserver-connect"], "client mode (--zserver-connect) is not supported yet"),
    (&["--prometheus=x"], "--prometheus=x: invalid port x"),
    (&["--prometheus=9000,stream"], "--prometheus=9000,stream: invalid param: stream"),
    (&["--debug-socket="], "--debug-socket=: there is no path"),
    (&["--debug-socket=/x,local"], "--debug-socket=/x,local: invalid param: local"),
    (&["--workers=x"], "error: invalid value 'x' for '--workers <N>'"),
    (&["--workers=-1"], "error: invalid value '-1' for '--workers <N>'"),
    (&["--ipc-file-mode=9"], "error: invalid value '9' for '--ipc-file-mode <OCTAL>'"),
    (&["--drain-timeout=1m"], "error: invalid value '1m' for '--drain-timeout <SECONDS>'"),
    (&["--listen", "--workers=1"], "error: a value is required for '--listen <[ADDR:]PORT"),
    (&["--nonsense"], "error: unexpected argument '--nonsense' found"),
    (&["nonsense"], "error: unexpected argument 'nonsense' found"),
];

#[test]
fn refusals_name_option_and_value() {
    let long_id = "x".repeat(65);
    let error = resolve(&[&format!("--id={long_id}")]).unwrap_err();
    assert!(error.starts_with(&format!("--id={long_id:?}: must have 1 to 64 bytes")), "{error}");
    for (line, text) in REFUSALS {
        let error = resolve(line).unwrap_err();
        assert!(error.starts_with(text), "{line:?}: {error}");
    }
}

#[test]
fn a_single_value_may_not_be_repeated() {
    for arg in ConnmgrCommand::command().get_arguments() {
        let name = arg.get_long().unwrap();
        let option = match arg.get_action() {
            clap::ArgAction::Set => format!("--{name}=1"),
            clap::ArgAction::SetTrue => format!("--{name}"),
            _ => continue,
        };
        let error = resolve(&[&option, &option]).unwrap_err();
        assert!(error.contains("cannot be used multiple times"), "{option}: {error}");
    }
}

#[test]
fn the_help_tells_the_bounds() {
    let bounds = [
        ("buffer-size", BUFFER_SIZE_MIN, BUFFER_SIZE_MAX),
        ("body-buffer-size", 1, BODY_BUFFER_SIZE_MAX),
        ("request-head-max", REQUEST_HEAD_MIN, REQUEST_HEAD_MAX),
        ("workers", 1, WORKERS_MAX),
    ];
    let command = ConnmgrCommand::command();
    for (name, min, max) in bounds {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name)).unwrap();
        let help = arg.get_help().unwrap().to_string();
        assert!(help.contains(&format!(", {min} to {max}")), "{name}: {help}");
    }
}

#[test]
fn each_option_has_help_a_topic_and_a_variable() {
    let topics = ["Listeners", "Handlers", "Limits", "Timeouts", "Observation", "Compatibility"];
    for arg in ConnmgrCommand::command().get_arguments() {
        let name = arg.get_long().unwrap();
        assert!(arg.get_help().is_some(), "{name}");
        assert!(arg.get_long_help().is_none(), "{name}: the help is one line");
        assert!(topics.contains(&arg.get_help_heading().unwrap_or_default()), "{name}");
        let variable = format!("FOREBAY_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
        // Whoever reads the help of what does nothing must not believe that it does something.
        let help = arg.get_help().unwrap().to_string();
        let is_idle = help.contains("without effect") || help.contains("not supported yet");
        assert_eq!(is_idle, arg.get_help_heading() == Some("Compatibility"), "{name}");
    }
    let about = ConnmgrCommand::command().get_about().unwrap().to_string();
    assert!(about.starts_with("Owns the clients' sockets"), "{about}");
}

/// Not a test by itself: [`environment`] runs it in a process that has variables.
#[test]
fn child_prints_its_configuration() {
    let Ok(line) = std::env::var("CONFIG_TEST_LINE") else { return };
    let line: Vec<&str> = line.split_terminator(' ').collect();
    println!("resolved: {:?}", resolve(&line));
}

/// What a process with these variables resolves. A process cannot change its own environment safely.
fn resolve_with(variables: &[(&str, &str)], line: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "config::tests::child_prints_its_configuration", "--nocapture"])
        .env("CONFIG_TEST_LINE", line)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    // The harness may have begun the line with the test's name.
    let (_, resolved) = output.split_once("resolved: ").unwrap();
    resolved.lines().next().unwrap().to_owned()
}

#[test]
fn environment() {
    let variables = [
        ("FOREBAY_LISTEN", "8001,stream \t/x,local\n"),
        ("FOREBAY_WORKERS", "4"),
        ("FOREBAY_ROUTE", "/a=ipc://a /b=ipc://b"),
        ("FOREBAY_ZCLIENT_STREAM", ""),
        ("FOREBAY_ZCLIENT_CONNECT", "yes"),
        ("FOREBAY_STREAM_MAXCONN", "77"),
        ("FOREBAY_HANDLER_WAIT", "250ms"),
        ("FOREBAY_IPC_FILE_MODE", "660"),
        ("FOREBAY_SIZES", "0"),
        ("FOREBAY_PROMETHEUS", "/m,local"),
    ];
    let mut expected = defaults();
    let at = |path: &str| UnixSpec { path: path.into(), ..UnixSpec::default() };
    expected.listen = vec![tcp("0.0.0.0:8001"), unix(at("/x"))];
    let address = ListenAddress::Unix(at("/m"));
    expected.prometheus = Some(PrometheusSpec { address, prefix: String::new() });
    expected.workers = NonZeroUsize::new(4).unwrap();
    expected.handlers = resolve(&["--route=/a=ipc://a", "--route=/b=ipc://b", "--zclient-connect"])
        .unwrap()
        .handlers;
    expected.handlers.ipc_file_mode = Some(0o660);
    expected.limits.stream_maxconn = 77;
    expected.timeouts.handler_wait = Duration::from_millis(250);
    let resolved = |expected: &Config| format!("{:?}", Ok::<_, String>(expected));
    assert_eq!(resolve_with(&variables, ""), resolved(&expected));

    // The command line wins, over a list as a whole too.
    expected.listen = vec![tcp("0.0.0.0:9")];
    expected.workers = NonZeroUsize::new(3).unwrap();
    assert_eq!(resolve_with(&variables, "--listen=9 --workers=3"), resolved(&expected));

    let refused = resolve_with(&[("FOREBAY_ZSERVER_STREAM", "ipc://x")], "");
    assert_eq!(refused, "Err(\"client mode (--zserver-stream) is not supported yet\")");
    let refused = resolve_with(&[("FOREBAY_WORKERS", "many")], "");
    assert!(refused.contains("invalid value 'many' for '--workers <N>'"), "{refused}");
}
