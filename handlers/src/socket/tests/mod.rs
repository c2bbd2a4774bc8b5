//! Sockets without an edge: a [`Client`] does with the answers what an edge does.

#![allow(clippy::unwrap_used)]

mod handshake;
mod publishing;
mod reading;
mod tokens;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use zhttp::Cursor;
use zhttp::hold::{BODIES_BYTES_MAX, CHANNELS_PER_HOLD_MAX};

use super::*;
use crate::attach::{Answer, ClientMessage, Close, Expires, HeldChannel, Response};
use crate::auth::{Role, Verifier, VerifierConfig};
use crate::fanout::HeadsReader;
use crate::roles::Limits;
use crate::store::{ChannelName, Retention};
use crate::testing::{
    NOW_MS, NOW_S, TestStore, answer, header, token, token_at, verifier, verifier_config,
};
use crate::web::tests::{head_of, headers_of};

/// A process that has sockets.
struct Bench {
    store: TestStore,
    sockets: Sockets<TestStore>,
}

impl Bench {
    /// One that takes messages as fast as they come.
    async fn new() -> Self {
        Bench::with(Some(Limits { rate: None, ..Limits::default() })).await
    }

    /// `None`: one that knows nothing of publishers.
    async fn with(limits: Option<Limits>) -> Self {
        let store = TestStore::open().await;
        let publisher =
            limits.map(|limits| Publisher::new(store.clone(), verifier(Role::Publisher), limits));
        let tokens = Tokens {
            subscriber: verifier(Role::Subscriber),
            publisher: publisher.is_some().then(|| verifier(Role::Publisher)),
        };
        Bench::of(store, tokens, publisher)
    }

    /// One that tells the kinds of tokens by nothing but their claims.
    async fn of_one_secret() -> Self {
        let store = TestStore::open().await;
        let verifier = |role| {
            Verifier::new(VerifierConfig { audience: None, ..verifier_config(role) }).unwrap()
        };
        let of_publishers = verifier(Role::Publisher);
        let publisher = Publisher::new(store.clone(), of_publishers.clone(), Limits::default());
        let tokens =
            Tokens { subscriber: verifier(Role::Subscriber), publisher: Some(of_publishers) };
        Bench::of(store, tokens, Some(publisher))
    }

    fn of(store: TestStore, tokens: Tokens, publisher: Option<Publisher<TestStore>>) -> Self {
        let heads = HeadsReader::new(store.clone());
        let sockets = Sockets {
            tokens,
            placer: Placer { store: store.clone(), heads, retention: Retention::default() },
            pages: Pages(store.clone()),
            publisher: publisher.map(Arc::new),
        };
        Bench { store, sockets }
    }

    fn ask(&self, uri: &str, headers: &[(&str, &str)]) -> Response {
        let headers = headers_of(headers);
        self.sockets.handshake(&head_of("GET", uri, &headers), (true, true), NOW_MS)
    }

    /// A client without a token.
    fn client(&self) -> Client<'_> {
        Client::new(self, &self.ask("/ws/acme", &[]))
    }

    /// One that has brought these tokens.
    async fn client_with(&self, tokens: &[&str]) -> Client<'_> {
        let mut client = self.client();
        for token in tokens {
            let heard = client.ask(&json!({"type": "refresh", "token": token})).await;
            assert_eq!(heard["type"], "answer", "{heard}");
        }
        client
    }

    /// One that may read and publish everything.
    async fn all(&self) -> Client<'_> {
        let tokens = [Role::Subscriber, Role::Publisher].map(|role| token(role, "acme", &["*"]));
        self.client_with(&[&tokens[0], &tokens[1]]).await
    }

    fn outcomes(&self) -> Vec<(&'static str, &'static str, u64)> {
        let totals = self.sockets.publisher.as_ref().unwrap().outcomes().totals();
        totals.into_iter().map(|(outcome, reason, n)| (outcome.as_str(), reason, n)).collect()
    }
}

/// A client on its socket, and what the edge knows of it.
struct Client<'b> {
    bench: &'b Bench,
    context: Bytes,
    /// The number of the last message.
    number: u64,
    channels: BTreeMap<String, HeldChannel>,
    expires: Expires,
    now_ms: u64,
}

impl<'b> Client<'b> {
    fn new(bench: &'b Bench, response: &Response) -> Self {
        let hold = response.hold.as_ref().expect("a hold");
        let expires = Expires { after: hold.expires, code: hold.expires_code };
        let (context, channels) = (hold.context.clone(), BTreeMap::new());
        Client { bench, context, number: 0, channels, expires, now_ms: NOW_MS }
    }

    fn said(&self, texts: &[String]) -> ClientMessages {
        let body = |text: &String| ClientMessage { body: text.clone().into(), binary: false };
        ClientMessages {
            edge: 0,
            id: Bytes::from_static(b"0-0-1"),
            path: PREFIX.to_owned(),
            number: self.number + 1,
            context: self.context.clone(),
            channels: self.channels.len() as u64,
            bodies: texts.iter().map(body).collect(),
        }
    }

    /// What an edge does with an answer (H-21, H-93).
    fn apply(&mut self, answer: &Answer) {
        self.number += 1;
        for name in &answer.remove {
            self.channels.remove(name);
        }
        for added in &answer.add {
            self.channels.entry(added.name.clone()).or_insert_with(|| added.clone());
        }
        assert!(self.channels.len() <= CHANNELS_PER_HOLD_MAX);
        assert!(answer.bodies.iter().map(String::len).sum::<usize>() <= BODIES_BYTES_MAX);
        if let Some(context) = &answer.context {
            self.context = context.clone();
        }
        if let Some(expires) = answer.expires {
            self.expires = expires;
        }
    }

    /// Says all of these at once, and returns what it hears.
    async fn say(&mut self, texts: &[String]) -> Vec<Value> {
        let said = self.said(texts);
        let answer = self.bench.sockets.message(&said, self.now_ms).await;
        assert_eq!(answer.close, None);
        self.apply(&answer);
        answer.bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect()
    }

    async fn ask_all(&mut self, requests: &[Value]) -> Vec<Value> {
        let texts: Vec<String> = requests.iter().map(Value::to_string).collect();
        self.say(&texts).await
    }

    async fn ask(&mut self, request: &Value) -> Value {
        let mut heard = self.ask_all(std::slice::from_ref(request)).await;
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    /// The code of the error that a request comes to, and what kind it is of.
    async fn refused(&mut self, request: &Value) -> (String, String) {
        let heard = self.ask(request).await;
        let text =
            |name: &str| heard[name].as_str().unwrap_or_else(|| panic!("{heard}")).to_owned();
        (text("code"), text("kind"))
    }

    /// What the edge delivers from where.
    fn reads(&self) -> Vec<(&str, Cursor)> {
        let channels = self.channels.iter();
        channels.map(|(name, channel)| (name.as_str(), channel.cursor)).collect()
    }
}

fn room(name: &str) -> ChannelName {
    ChannelName::new("acme", name).unwrap()
}

fn permanent(code: &str) -> (String, String) {
    (code.to_owned(), "permanent".to_owned())
}

fn transient(code: &str) -> (String, String) {
    (code.to_owned(), "transient".to_owned())
}

#[tokio::test]
async fn what_is_no_request_is_answered_and_the_socket_stays() {
    let bench = Bench::new().await;
    let mut client = bench.client();
    let texts = ["{", "7", r#"{"type":"ping","id":1}"#, r#"{"type":"x","id":"y"}"#];
    let heard = client.say(&texts.map(str::to_owned)).await;
    let codes: Vec<_> = heard.iter().map(|heard| (&heard["id"], &heard["code"])).collect();
    let bad = &json!("bad_request");
    let none = &Value::Null;
    assert_eq!(codes, [(none, bad), (none, bad), (&json!(1), none), (&json!("y"), bad)]);
    assert_eq!(heard[2], json!({"type": "answer", "id": 1, "result": {}}));
    assert_eq!(heard[3]["message"], r#"type: "x" is unknown"#);

    let mut said = client.said(&[]);
    let answer = bench.sockets.message(&said, NOW_MS).await;
    assert_eq!(answer, Answer::default());
    said.bodies.push(ClientMessage { body: Bytes::from_static(b"\xff{}"), binary: true });
    let answer = bench.sockets.message(&said, NOW_MS).await;
    assert!(answer.bodies[0].contains("a request is a text message"), "{answer:?}");
    assert_eq!(Answer { bodies: Vec::new(), ..answer }, Answer::default());
    // A long text is not repeated whole.
    let heard = client.ask(&json!({"type": "x".repeat(60_000)})).await;
    assert_eq!(heard["message"].as_str().unwrap().len(), 200);
}

#[tokio::test]
async fn a_context_of_another_version_makes_the_client_connect_again() {
    let bench = Bench::new().await;
    for context in [&b""[..], b"{}", br#"{"v":2}"#, b"\xff"] {
        let mut said = bench.client().said(&[r#"{"type":"ping"}"#.to_owned()]);
        said.context = Bytes::copy_from_slice(context);
        let answer = bench.sockets.message(&said, NOW_MS).await;
        assert_eq!(answer.close, Some(Close { code: 1012, reason: String::new() }));
        assert!(answer.bodies.is_empty());
    }
}
