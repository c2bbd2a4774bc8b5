//! Whoever ends behind the edge: each request is answered once, in its order, and what it published is stored once. No
//! socket is disconnected, but by the end of its edge.

use std::collections::HashMap;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::peer::Make;
use super::socket::{Socket, delta_request};
use super::system::System;
use crate::support::eventually;

/// Requests of each socket that are under way at a time.
const AT_ONCE: u64 = 60;

/// How often handlers are ended.
const ROUNDS: usize = 6;

/// How long all handlers are away.
const OUTAGE: Duration = Duration::from_secs(2);

/// A socket that publishes in a channel of its own, and reads it.
struct Publishing {
    socket: Socket,
    channel: String,
    /// What was asked, in its order; the id and the value of each is its number.
    asked: u64,
    /// What each request was answered with: the id of its event, or `None` if it is not known whether there is one.
    answers: Vec<Option<String>>,
    /// Ids and data that came.
    events: Vec<(String, Value)>,
}

impl Publishing {
    fn open(system: &System, make: Make, number: usize) -> Publishing {
        let channel = format!("deaths-{number}");
        // Half of those that know compression.
        let compression = make != Make::Tungstenite && number.is_multiple_of(2);
        let mut socket = system.socket((make, compression), &channel);
        socket.subscribe(&channel, None);
        Publishing { socket, channel, asked: 0, answers: Vec::new(), events: Vec::new() }
    }

    /// Asks, without waiting for an answer.
    fn ask(&mut self, count: u64) {
        for number in self.asked..self.asked + count {
            let mut request = delta_request(&self.channel, number);
            request["id"] = number.into();
            self.socket.say(&request);
        }
        self.asked += count;
    }

    /// Reads up to the next answer.
    #[track_caller]
    fn read_answer(&mut self) {
        let answered = self.answers.len();
        while self.answers.len() == answered {
            let message = self.socket.message();
            self.take(message);
        }
    }

    #[track_caller]
    fn take(&mut self, mut message: Value) {
        match message["type"].as_str() {
            Some("event") => {
                assert_eq!(message["event"], "stream", "{message}");
                let cursor = message["cursor"].as_str().unwrap().to_owned();
                self.events.push((cursor, message["data"].take()));
            }
            Some("answer") => {
                assert_eq!(message["id"], self.answers.len(), "{message}");
                self.answers.push(Some(message["result"]["id"].as_str().unwrap().to_owned()));
            }
            Some("error") => {
                assert_eq!(message["id"], self.answers.len(), "{message}");
                assert_eq!(message["kind"], "transient", "{message}");
                self.answers.push(None);
            }
            _ => panic!("{message}"),
        }
    }

    /// Waits until the edge has read all that was asked: it answers a ping frame by itself, behind that.
    #[track_caller]
    fn wait_until_read(&mut self) {
        self.socket.peer.tell(&json!({"do": "ping", "hex": "70"}));
        loop {
            let happened = self.socket.peer.hear();
            match happened["text"].as_str() {
                Some(text) => self.take(serde_json::from_str(text).unwrap()),
                None => return assert_eq!(happened, json!({"pong": "70"})),
            }
        }
    }

    /// Reads all answers that are due.
    #[track_caller]
    fn read_answers(&mut self) {
        while self.answers.len() < usize::try_from(self.asked).unwrap() {
            self.read_answer();
        }
    }

    /// Everything was answered once and stored once, and came once; the socket is there.
    #[track_caller]
    fn check(mut self, system: &System) {
        let history = system.history(&self.channel);
        let mut stored: HashMap<u64, &str> = HashMap::new();
        for (id, data) in &history {
            let value = data["payload"]["value"].as_f64().unwrap() as u64;
            assert_eq!(stored.insert(value, id), None, "{value} is stored twice");
        }
        for (number, answer) in (0..self.asked).zip(&self.answers) {
            let id = stored.remove(&number);
            match answer {
                Some(answered) => assert_eq!(id, Some(&**answered), "{number}"),
                None => println!("{} {number} has failed for now, stored: {id:?}", self.channel),
            }
        }
        assert_eq!(stored, HashMap::new(), "nobody asked for these");
        let answered: Vec<&String> = self.answers.iter().flatten().collect();
        assert!(answered.is_sorted_by_key(|id| offset(id)), "not in their order");
        while self.events.len() < history.len() {
            let message = self.socket.message();
            self.take(message);
        }
        assert_eq!(self.events, history);
        self.socket.is_alive();
        self.socket.has_no_event();
    }
}

/// Epoch and offset of an id.
fn offset(id: &str) -> (u64, u64) {
    let (epoch, offset) = id.split_once('-').unwrap();
    (epoch.parse().unwrap(), offset.parse().unwrap())
}

/// A system without a limit on the rate, and two sockets of each make that publish.
fn start() -> (System, Vec<Publishing>) {
    let system = System::start(&["--channel-rate=0"]);
    let makes = Make::ALL.into_iter().filter(|make| make.is_installed());
    let makes = makes.flat_map(|make| [make, make]).enumerate();
    let sockets = makes.map(|(number, make)| Publishing::open(&system, make, number)).collect();
    (system, sockets)
}

/// Ends one handler after the other by a signal. In every second round none is quicker than that: the store stands
/// still, until the edge has read all requests and the handler is gone.
fn handlers_end_by(signal: &str) {
    let (mut system, mut sockets) = start();
    for round in 0..ROUNDS {
        let is_store_stopped = round % 2 == 1;
        if is_store_stopped {
            system.redis.signal("STOP");
        }
        for publishing in &mut sockets {
            publishing.ask(AT_ONCE);
        }
        if is_store_stopped {
            for publishing in &mut sockets {
                publishing.wait_until_read();
            }
            system.signal_handler(round / 2 % 2, signal);
            if signal == "KILL" {
                system.wait_for_end(round / 2 % 2);
            }
            system.redis.signal("CONT");
        } else {
            sockets[round % 2].read_answer();
            system.signal_handler(round / 2 % 2, signal);
        }
        system.restart_handler(round / 2 % 2);
        for publishing in &mut sockets {
            publishing.read_answers();
        }
    }
    for publishing in sockets {
        publishing.check(&system);
    }
}

#[test]
fn killed_handlers_lose_nothing_and_repeat_nothing() {
    handlers_end_by("KILL");
}

#[test]
fn handlers_that_are_told_to_end_lose_nothing_and_repeat_nothing() {
    handlers_end_by("TERM");
}

#[test]
fn a_stopped_handler_keeps_no_request() {
    let (system, mut sockets) = start();
    // Both have some, as the store stands still; one of them does not go on with its own.
    system.redis.signal("STOP");
    for publishing in &mut sockets {
        publishing.ask(AT_ONCE);
    }
    for publishing in &mut sockets {
        publishing.wait_until_read();
    }
    system.signal_handler(0, "STOP");
    system.redis.signal("CONT");
    for publishing in &mut sockets {
        publishing.read_answers();
    }
    // What it says now comes too late.
    system.signal_handler(0, "CONT");
    for publishing in sockets {
        publishing.check(&system);
    }
}

#[test]
fn requests_wait_while_all_handlers_are_away() {
    for signal in ["KILL", "TERM"] {
        let (mut system, mut sockets) = start();
        system.end_handlers(signal);
        for publishing in &mut sockets {
            publishing.ask(AT_ONCE);
        }
        for publishing in &mut sockets {
            publishing.wait_until_read();
        }
        let until = Instant::now() + OUTAGE;
        while Instant::now() < until {
            for publishing in &mut sockets {
                assert_eq!(publishing.socket.peer.heard_now(), None);
            }
            std::thread::sleep(OUTAGE / 100);
        }
        system.start_handlers();
        for mut publishing in sockets {
            publishing.read_answers();
            assert!(publishing.answers.iter().all(Option::is_some), "{:?}", publishing.answers);
            publishing.check(&system);
        }
    }
}

#[test]
fn an_edge_that_ends_answers_what_is_under_way_and_says_goodbye() {
    let (system, mut sockets) = start();
    let mut idle = system.socket((Make::Tungstenite, false), "idle");
    system.redis.signal("STOP");
    for publishing in &mut sockets {
        publishing.ask(1);
    }
    for publishing in &mut sockets {
        publishing.wait_until_read();
    }
    system.edge.signal("TERM");
    eventually("it takes no clients", || {
        TcpStream::connect(&system.address).is_err().then_some(())
    });
    assert_eq!(idle.closed(), 1001);
    system.redis.signal("CONT");
    for mut publishing in sockets {
        let reply = publishing.socket.reply();
        assert_eq!(reply["id"], 0, "{reply}");
        assert!(reply["result"]["id"].is_string() || reply["kind"] == "transient", "{reply}");
        loop {
            let mut happened = publishing.socket.peer.hear();
            if happened.get("text").is_none() {
                assert_eq!(happened["closed"]["code"].take(), 1001, "{happened}");
                break;
            }
        }
    }
    assert_eq!(system.edge.wait().code(), 0);
}
