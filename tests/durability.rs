//! What survives when `forebay up` is killed: everything that was acknowledged, every reader's place, and the order.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};

use forebay_chaos::Disk;
use forebay_handlers::auth::Role;
use serde_json::{Value, json};
use support::process::{Process, forebay};
use support::up::{DataDir, NO_RATE, ORG, Reading, reserved_port};
use support::{Event, EventStream, Next, Request, Up, eventually, get};

/// Channels that are published to at the same time.
const CHANNELS: [&str; 3] = ["a", "b", "c"];

/// Readers of each channel.
const READERS_PER_CHANNEL: usize = 2;

/// Messages in each channel, the END not counted.
const MESSAGES_PER_CHANNEL: usize = 60;

/// How often the server dies under this.
const DEATHS: usize = 5;

/// Asks until it is answered, and the answer is not "later".
fn persevere(request: &Request, address: &str) -> support::Response {
    eventually("the server answers", || {
        let response = request.try_send(address).ok()?;
        (!matches!(response.status(), 502 | 503)).then_some(response)
    })
}

/// The n-th message of a channel. It has the same id however often it is sent.
fn message(channel: usize, number: usize) -> Value {
    let id = format!("00000000-0000-4000-8000-{channel:04x}{number:08x}");
    json!({"message_id": id, "phase": "PHASE_DELTA", "payload": {"value": number}})
}

/// Publishes all messages and the END; returns the ids that were acknowledged.
fn publish_all(requests: &[Request], address: &str, acknowledged: &AtomicUsize) -> Vec<String> {
    let publish = |request: &Request| {
        let id = persevere(request, address).good().to_owned();
        acknowledged.fetch_add(1, Ordering::SeqCst);
        id
    };
    requests.iter().map(publish).collect()
}

/// Reads to the END, through any number of connections, each with the cursor of the last; returns all events.
fn read_all(reading: &Reading, address: &str) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut cursor = String::new();
    loop {
        let request = reading.clone().after(&cursor).request();
        let mut stream = eventually("the server takes a reader", || {
            EventStream::try_open(&request, address).ok().filter(|stream| stream.head.status != 503)
        });
        if stream.head.status == 204 {
            return events;
        }
        assert_eq!(stream.head.status, 200, "{:?}", stream.head);
        while let Next::Block(block) = stream.next() {
            if block.starts_with("retry:") {
                continue;
            }
            let event = Event::parse(&block);
            if !event.id.is_empty() {
                cursor.clone_from(&event.id);
            }
            if event.kind == "stream" {
                events.push(event);
            } else {
                assert_eq!(event.json()["control_type"], "server_draining", "{event:?}");
            }
        }
    }
}

#[test]
fn a_killed_server_loses_nothing_that_it_acknowledged() {
    let port = reserved_port();
    let mut up = Up::start_in(&DataDir::new(), port.address(), &[NO_RATE]);
    let address = port.address();
    let acknowledged = AtomicUsize::new(0);
    let total = CHANNELS.len() * (MESSAGES_PER_CHANNEL + 1);

    let requests = |index: usize, channel: &str| {
        let messages = (0..MESSAGES_PER_CHANNEL).map(|number| message(index, number));
        let end = json!({"message_id": format!("00000000-0000-4000-8000-ffff{index:08x}"), "phase": "PHASE_END"});
        messages.chain([end]).map(|message| up.publishing(channel, "").json(&message)).collect()
    };
    let work = CHANNELS.iter().enumerate();
    let work: Vec<(Vec<Request>, Reading)> =
        work.map(|(index, channel)| (requests(index, channel), up.reading(&[channel]))).collect();

    std::thread::scope(|scope| {
        let mut channels = Vec::new();
        for (requests, reading) in work {
            let acknowledged = &acknowledged;
            let publisher = scope.spawn(move || publish_all(&requests, address, acknowledged));
            let readers = [(); READERS_PER_CHANNEL].map(|()| {
                let reading = reading.clone();
                scope.spawn(move || read_all(&reading, address))
            });
            channels.push((publisher, readers));
        }
        for death in 1..=DEATHS {
            eventually("some more is acknowledged", || {
                (acknowledged.load(Ordering::SeqCst) >= death * total / (DEATHS + 1)).then_some(())
            });
            // In the middle of what it does, and every other time with a warning.
            up = if death % 2 == 0 {
                up.stop_and_start(&[NO_RATE])
            } else {
                up.kill_and_start(&[NO_RATE])
            };
        }
        for ((publisher, readers), channel) in channels.into_iter().zip(CHANNELS) {
            let ids = publisher.join().unwrap();
            let stored = up.all_events(channel);
            assert_eq!(
                stored.iter().map(|(id, _)| id).collect::<Vec<_>>(),
                ids.iter().collect::<Vec<_>>()
            );
            let values =
                stored[..MESSAGES_PER_CHANNEL].iter().map(|(_, data)| &data["payload"]["value"]);
            assert!(
                values.eq((0..MESSAGES_PER_CHANNEL).map(Value::from).collect::<Vec<_>>().iter())
            );
            for reader in readers {
                let read: Vec<_> =
                    reader.join().unwrap().into_iter().map(|event| event.id).collect();
                assert_eq!(read, ids, "{channel}");
            }
        }
    });
}

#[test]
fn killing_loses_nothing_however_rarely_the_disk_is_synced() {
    for when in ["always", "interval", "never"] {
        let arguments = [NO_RATE, "--fsync", when];
        let mut up = Up::start_with(&arguments);
        let published: Vec<_> = (0..20).map(|number| up.delta("news", number)).collect();
        up.process.kill();
        let up = Up::start_in(&up.dir, "127.0.0.1:0", &arguments);
        let stored: Vec<_> = up.all_events("news").into_iter().map(|(id, _)| id).collect();
        assert_eq!(stored, published, "--fsync {when}");
        assert!(up.delta("news", 20).ends_with("-21"));
    }
}

#[test]
fn what_was_accepted_is_stored_before_a_stop() {
    let up = Up::start();
    for number in 0..50 {
        let request = up.publishing("news", "?ack=accepted");
        let message = json!({"payload": {"value": number}});
        assert_eq!(up.send(&request.json(&message)).status(), 202);
    }
    let dir = up.dir.clone();
    assert_eq!(up.process.terminate().code(), 0);
    let up = Up::start_in(&dir, "127.0.0.1:0", &[NO_RATE]);
    let stored: Vec<_> = up
        .all_events("news")
        .into_iter()
        .map(|(_, data)| data["payload"]["value"].clone())
        .collect();
    assert_eq!(stored, (0..50).map(Value::from).collect::<Vec<_>>());
}

/// Epoch and offset of an event id.
fn parts(id: &str) -> (u64, u64) {
    let (epoch, offset) = id.split_once('-').unwrap();
    (epoch.parse().unwrap(), offset.parse().unwrap())
}

#[test]
fn no_id_comes_twice_whatever_happens_to_a_channel() {
    let mut up = Up::start();
    let mut ids = Vec::new();
    for round in 0..4 {
        ids.push(up.delta("news", round));
        ids.push(up.delta("news", round));
        if round % 2 == 0 {
            ids.push(up.end("news"));
        } else {
            let token = up.dir.token(Role::Publisher, ORG, &["news"]);
            let delete = Request::new("DELETE", format!("/channels/{ORG}/news")).bearer(&token);
            assert_eq!(up.send(&delete).status(), 204);
        }
        up.process.kill();
        up = Up::start_in(&up.dir, "127.0.0.1:0", &[NO_RATE]);
    }
    let parts: Vec<_> = ids.iter().map(|id| parts(id)).collect();
    assert!(parts.windows(2).all(|two| two[0] < two[1]), "{ids:?}");
    // Each round is an epoch of its own, and none has a hole.
    let mut epochs = parts.chunk_by(|a, b| a.0 == b.0);
    assert!(epochs.all(|epoch| epoch.iter().map(|id| id.1).eq(1..=epoch.len() as u64)), "{ids:?}");
    assert_eq!(parts.chunk_by(|a, b| a.0 == b.0).count(), 4, "{ids:?}");
}

#[test]
fn a_directory_has_one_process() {
    let up = Up::start();
    let pid = up.process.pid();
    let name = up.dir.path().display().to_string();
    let second = |arguments: &[&str]| {
        let mut command = forebay();
        command.args(["up", "--listen", "127.0.0.1:0"]).args(arguments);
        Process::run(&mut command)
    };
    let text = format!("error: data directory {name} is in use by another process (pid {pid})\n");
    // The second has its events elsewhere, but the sockets and keys would be the same.
    for store in [&[][..], &["--redis", "redis://127.0.0.1:1/"]] {
        let refused = second(&[&["--data-dir", &name], store].concat());
        assert_eq!((refused.code(), refused.stderr.as_str()), (1, &*text));
    }
    let sockets = format!("{name}/run");
    let other = DataDir::new();
    let refused = second(&["--data-dir", other.path().to_str().unwrap(), "--run-dir", &sockets]);
    let text = format!("error: run directory {sockets} is in use by another process (pid {pid})\n");
    assert_eq!((refused.code(), refused.stderr.as_str()), (1, &*text));

    // The first one has not noticed, and when it is gone the directory is free.
    up.delta("news", 1);
    let up = up.kill_and_start(&[NO_RATE]);
    assert_eq!(up.all_events("news").len(), 1);
}

#[test]
fn a_reader_comes_back_to_another_life_of_the_server() {
    let port = reserved_port();
    let up = Up::start_in(&DataDir::new(), port.address(), &[NO_RATE]);
    let reading = up.reading(&["a", "b"]);
    let mut stream = up.read(&reading);
    up.delta("a", 1);
    up.delta("b", 2);
    let last = stream.events(2).pop().unwrap().id;
    // It sees the connection break, not an orderly end: a killed server has no time for that.
    let up = up.kill_and_start(&[NO_RATE]);
    assert_eq!(stream.next(), Next::Cut);
    up.delta("a", 3);
    up.delta("b", 4);
    let mut resumed = up.read(&reading.after(&last));
    let mut values: Vec<_> = resumed.events(2).iter().map(|event| event.value().as_u64()).collect();
    values.sort();
    assert_eq!(values, [Some(3), Some(4)]);
}

/// How often the disk is full.
const TIMES_FULL: usize = 3;

#[test]
fn a_full_disk_is_told_and_passes_without_a_restart() {
    let dir = DataDir::new();
    let disk = match Disk::mount(dir.path()) {
        Ok(disk) => disk,
        Err(error) => return println!("left out: no small disk: {error}"),
    };
    let up = Up::start_in(&dir, "127.0.0.1:0", &[NO_RATE]);
    let mut ids = vec![up.delta("news", 0)];
    let mut stream = up.read(&up.reading(&["news"]));
    let publish = |number| up.publishing("news", "").json(&message(0, number));
    let mut number = 0;
    for _ in 0..TIMES_FULL {
        disk.fill().unwrap();
        // What was set aside before takes some events still.
        let refused = loop {
            number += 1;
            let response = up.send(&publish(number));
            if response.status() != 200 {
                break response;
            }
            ids.push(response.good().to_owned());
        };
        assert_eq!(refused.answer(), (503, "Store unavailable"));
        assert!(refused.header("retry-after").is_some());
        let said = format!("the disk of {}", dir.path().display());
        eventually("the disk is why it is not ready", || {
            let ready = up.send(&get("/readyz"));
            let store = ready.json()["dependencies"]["store"].to_string();
            (ready.status() == 503 && store.contains(&said)).then_some(())
        });
        // Reads go on.
        let stored: Vec<_> = up.all_events("news").into_iter().map(|(id, _)| id).collect();
        assert_eq!(stored, ids);

        disk.empty().unwrap();
        // Sent again until it is taken, it is there once.
        ids.push(persevere(&publish(number), &up.address).good().to_owned());
        let stored: Vec<_> = up.all_events("news").into_iter().map(|(id, _)| id).collect();
        assert_eq!(stored, ids);
        eventually("it is ready", || (up.send(&get("/readyz")).status() == 200).then_some(()));
    }
    // Who read meanwhile has got all of it on one connection, a refused event that was stored included.
    ids.push(up.end("news"));
    let read: Vec<_> = stream.events_to_end().into_iter().map(|event| event.id).collect();
    assert_eq!(read, ids);
}
