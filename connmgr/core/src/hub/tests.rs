//! What is between the parts of the hub.

#![allow(clippy::unwrap_used)]

use zhttp::hold::Serves;

use super::*;

fn hub() -> Hub {
    Hub::new(HubConfig {
        instance_id: b"edge"[..].into(),
        workers: 1,
        dispatch: DispatchConfig {
            handler_wait_ms: 10_000,
            waiting_requests_max: 10,
            waiting_bytes_max: 10_000,
            req_group: 1,
            routes: Vec::new(),
        },
        feeds: FeedsConfig {
            seed: 1,
            tail_bytes_max: 1_000,
            tails_bytes_max: 1_000,
            range_bytes_max: 1_000,
            ranges_in_flight_max: 1,
            answer_timeout_ms: 1_000,
            linger_ms: 1_000,
        },
    })
}

fn hello(hub: &mut Hub, now_ms: u64, name: &[u8]) {
    let serves = Serves::default();
    let hello = Hello { ttl_ms: 3000, incarnation: 1, feeds: false, serves, requests_max: 0 };
    let mut out = Vec::new();
    hold::write_packet(&mut out, name, Kind::Hello, |fields| hello.write(fields, &[]));
    hub.handle_packet(now_ms, Some(name), &out.into()).unwrap();
}

fn closed(hub: &mut Hub, now_ms: u64, text: String) {
    let packet = Bytes::from(text);
    hub.handle_worker(now_ms, 0, ToHub::Notify { id: (&packet).into(), packet });
    hub.check_invariants();
}

/// What is sent, and to whom.
fn routed(hub: &mut Hub, now_ms: u64) -> Vec<String> {
    let mut routed = Vec::new();
    while let Some(output) = hub.poll_output(now_ms) {
        let HubOutput::Route { peer, packet } = output else { panic!("{output:?}") };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        routed.push(format!("{} to {}", text(&packet), text(&peer)));
    }
    routed
}

/// hold.md H-25.
#[test]
fn who_comes_within_ten_seconds_is_told_what_has_closed() {
    let mut hub = hub();
    closed(&mut hub, 0, "early".into());
    closed(&mut hub, 1_000, "late".into());
    assert_eq!(routed(&mut hub, 1_000), Vec::<String>::new());
    hello(&mut hub, 10_000, b"a");
    assert_eq!(routed(&mut hub, 10_000), ["late to a"]);
    closed(&mut hub, 10_001, "now".into());
    assert_eq!(routed(&mut hub, 10_001), ["now to a"]);
    hub.handle_peer_lost(10_002, b"a");
    hello(&mut hub, 10_003, b"b");
    assert_eq!(routed(&mut hub, 10_003), Vec::<String>::new(), "it is told once");
}

#[test]
fn what_waits_to_be_told_is_bounded() {
    let mut hub = hub();
    for number in 0..=NOTICES_MAX {
        closed(&mut hub, 0, number.to_string());
    }
    hello(&mut hub, 0, b"a");
    let told = routed(&mut hub, 0);
    assert_eq!((told.len(), &*told[0]), (NOTICES_MAX, "1 to a"), "the oldest is forgotten");
}

/// What workers were passed, in words.
fn told_workers(hub: &mut Hub) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(output) = hub.poll_output(0) {
        let HubOutput::Worker { worker, message } = output else { panic!("{output:?}") };
        told.push(match message {
            FromHub::Packet(_) => format!("{worker} packet"),
            FromHub::Reply(_) => format!("{worker} reply"),
            FromHub::Malformed { mode, from, error, .. } => {
                let from = String::from_utf8(from.to_vec()).unwrap();
                format!("{worker} {mode:?} from {from:?}: {error}")
            }
            FromHub::Refused(_)
            | FromHub::Unserved(_)
            | FromHub::HandlerLeft(_)
            | FromHub::Undelivered(_)
            | FromHub::Stalled(_)
            | FromHub::Flowing(_)
            | FromHub::Fed(_)
            | FromHub::Missed(..) => {
                panic!("{message:?}")
            }
        });
    }
    told
}

#[test]
fn what_is_not_understood_goes_to_the_workers_of_its_sessions() {
    let mut hub = hub();
    let wrong = |id: &str| {
        let map = format!("2:id,{}:{id},4:type,4:what,", id.len());
        Bytes::from(format!("T{}:{map}}}", map.len()))
    };
    hub.handle_packet(0, Some(b"h"), &wrong("0-1-1")).unwrap();
    assert_eq!(told_workers(&mut hub), [r#"0 Stream from "h": field type: unknown"#]);
    hub.handle_reply(&wrong("0-1-1")).unwrap();
    assert_eq!(told_workers(&mut hub), [r#"0 Req from "": field type: unknown"#]);
    for elsewhere in ["x", "9-0-1"] {
        let error = hub.handle_packet(0, None, &wrong(elsewhere));
        assert_eq!(error, Err(PacketError::UnknownType), "nobody else can say so");
    }
    let nobodys = Bytes::from_static(b"T14:4:type,4:what,}");
    for error in [hub.handle_packet(0, None, &nobodys), hub.handle_reply(&nobodys)] {
        assert_eq!(error, Err(PacketError::UnknownType), "nobody else can say so");
    }
}

#[test]
fn answers_of_req_mode_are_about_sessions() {
    let mut hub = hub();
    hub.handle_reply(&Bytes::from_static(b"T13:2:id,5:0-1-1,}")).unwrap();
    assert_eq!(told_workers(&mut hub), ["0 reply"]);
    hub.handle_packet(0, None, &Bytes::from_static(b"T13:2:id,5:0-1-1,}")).unwrap();
    assert_eq!(told_workers(&mut hub), ["0 packet"]);
    let hello = Bytes::from_static(b"T15:4:type,5:hello,}");
    assert_eq!(hub.handle_reply(&hello), Err(PacketError::Missing("id")));
    assert_eq!((told_workers(&mut hub).len(), hub.handlers()), (0, 0));
}
