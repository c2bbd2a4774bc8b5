//! What tokens allow, for how long, and how they follow each other.

use std::time::Duration;

use super::*;
use crate::socket::context::{REFUSED_TOKENS_MAX, Socket};

fn subscriber(channels: &[&str], now_s: u64) -> Value {
    json!({"type": "refresh", "token": token_at(Role::Subscriber, "acme", channels, now_s)})
}

fn publisher(channels: &[&str], now_s: u64) -> Value {
    json!({"type": "refresh", "token": token_at(Role::Publisher, "acme", channels, now_s)})
}

fn standing(context: &[u8]) -> Socket {
    match Standing::decode(context) {
        Some(Standing::Open(socket)) => *socket,
        other => panic!("{other:?}"),
    }
}

impl Client<'_> {
    fn standing(&self) -> Socket {
        standing(&self.context)
    }
}

#[tokio::test]
async fn each_kind_allows_its_own() {
    let bench = Bench::new().await;
    let reads = ["subscribe", "history", "head"];
    let (reader, writer) =
        (token(Role::Subscriber, "acme", &["a*"]), { token(Role::Publisher, "acme", &["b"]) });
    let mut client = bench.client_with(&[&reader]).await;
    for kind in reads {
        let heard = client.ask(&json!({"type": kind, "channel": "a1"})).await;
        assert_eq!(heard["type"], "answer", "{heard}");
        let refused = client.refused(&json!({"type": kind, "channel": "b"})).await;
        assert_eq!(refused, permanent("forbidden"));
    }
    let publish = |channel: &str| json!({"type": "publish", "channel": channel});
    assert_eq!(client.refused(&publish("a1")).await, permanent("unauthorized"));

    let mut client = bench.client_with(&[&writer]).await;
    for kind in reads {
        let refused = client.refused(&json!({"type": kind, "channel": "b"})).await;
        assert_eq!(refused, permanent("unauthorized"));
    }
    assert_eq!(client.ask(&publish("b")).await["type"], "answer");
    assert_eq!(client.refused(&publish("a1")).await, permanent("forbidden"));

    // Both together, whichever comes first.
    for tokens in [[&*reader, &writer], [&*writer, &reader]] {
        let mut client = bench.client_with(&tokens).await;
        assert_eq!(client.ask(&publish("b")).await["type"], "answer");
        assert_eq!(client.ask(&json!({"type": "head", "channel": "a"})).await["type"], "answer");
    }
    // Without any, these are for everybody.
    let mut client = bench.client();
    for request in [json!({"type": "ping"}), json!({"type": "unsubscribe", "channel": "x"})] {
        assert_eq!(client.ask(&request).await["type"], "answer");
    }
    let outcomes = [("accepted", "stored", 3), ("invalid", "token", 2)];
    assert_eq!(bench.outcomes(), outcomes);
}

#[tokio::test]
async fn a_process_without_publishers_keys_publishes_nothing() {
    let bench = Bench::with(None).await;
    let reader = token(Role::Subscriber, "acme", &["*"]);
    let mut client = bench.client_with(&[&reader]).await;
    let refused = client.refused(&json!({"type": "publish", "channel": "a"})).await;
    assert_eq!(refused, permanent("unauthorized"));
    assert_eq!(client.refused(&publisher(&["*"], NOW_S)).await, permanent("invalid_token"));
}

#[tokio::test]
async fn a_refresh_prolongs_the_socket() {
    let bench = Bench::new().await;
    let mut client = bench.client();
    let heard = client.ask(&subscriber(&["a", "b*"], NOW_S)).await;
    assert_eq!(heard["result"], json!({"expires": NOW_S + 120}));
    client.now_ms += 50_000;
    let later = |seconds| Expires { after: Some(Duration::from_secs(seconds)), code: 3000 };
    let heard = client.ask(&subscriber(&["b*", "a", "c"], NOW_S + 50)).await;
    assert_eq!(heard["result"], { json!({"expires": NOW_S + 170}) });
    assert_eq!(client.expires, later(120));
    assert_eq!(client.ask(&json!({"type": "head", "channel": "c"})).await["type"], "answer");
    // It ends with the first of its tokens.
    let heard = client.ask(&publisher(&["a"], NOW_S + 20)).await;
    assert_eq!(heard["result"], json!({"expires": NOW_S + 140}));
    assert_eq!(client.expires, later(90));
    let heard = client.ask(&publisher(&["*"], NOW_S + 50)).await;
    assert_eq!(heard["result"], json!({"expires": NOW_S + 170}));
    // Without a new token nothing about it changes.
    let said = client.said(&[r#"{"type":"ping"}"#.to_owned()]);
    let answer = bench.sockets.message(&said, client.now_ms).await;
    assert_eq!((answer.context, answer.expires), (None, None));
}

#[tokio::test]
async fn a_token_that_covers_less_is_refused_and_the_old_one_stays() {
    let bench = Bench::new().await;
    let mut client = bench.client();
    client.ask(&subscriber(&["a", "b*"], NOW_S)).await;
    client.ask(&publisher(&["x", "y"], NOW_S)).await;
    let before = client.context.clone();
    for narrower in [
        subscriber(&["a"], NOW_S + 50),
        subscriber(&["b*"], NOW_S + 50),
        subscriber(&["a", "b"], NOW_S + 50),
        publisher(&["x"], NOW_S + 50),
    ] {
        let heard = client.ask(&narrower).await;
        assert_eq!(heard["code"], "invalid_token");
        assert_eq!(heard["message"], "The token covers less than the one before");
    }
    assert_eq!(client.standing(), Socket { refused_tokens: 4, ..standing(&before) });
    assert_eq!(client.expires.after, Some(Duration::from_secs(120)));
    // A publisher's without channels covers all of them; then only such a one does.
    assert_eq!(client.ask(&publisher(&[], NOW_S)).await["type"], "answer");
    assert_eq!(client.refused(&publisher(&["*"], NOW_S)).await, permanent("invalid_token"));
}

#[tokio::test]
async fn a_token_that_is_not_good_spoils_its_request_only() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    let (before, number) = (client.context.clone(), client.number);
    let other_org = token(Role::Subscriber, "other", &["*"]);
    let expired = token_at(Role::Subscriber, "acme", &["*"], NOW_S - 121);
    let names: Vec<String> = (0..8).map(|n| format!("{n}{}", "c".repeat(127))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["*"]).collect();
    let long = token(Role::Subscriber, "acme", &names);
    for (token, code, text) in [
        ("x", "invalid_token", "Invalid token"),
        (&*expired, "invalid_token", "Token expired"),
        (&*other_org, "forbidden", "The token does not cover this org"),
        (
            &*long,
            "invalid_token",
            "What the tokens cover does not fit the 1024 bytes that a socket may have",
        ),
    ] {
        for kind in ["refresh", "ping", "publish"] {
            let heard =
                client.ask(&json!({"type": kind, "token": token, "channel": "a", "id": 1})).await;
            let expected = json!({"type": "error", "id": 1, "code": code, "kind": "permanent",
                "message": text});
            assert_eq!(heard, expected);
        }
        let left = Socket { refused_tokens: 3, ..standing(&before) };
        assert_eq!(client.standing(), left);
        client.context = before.clone();
    }
    assert_eq!(client.number, number + 12);
    assert_eq!(client.ask(&json!({"type": "publish", "channel": "a"})).await["type"], "answer");
    assert_eq!(bench.outcomes(), [("accepted", "stored", 1), ("invalid", "token", 4)]);
}

#[tokio::test]
async fn a_token_counts_from_its_request_on() {
    let bench = Bench::new().await;
    let mut client = bench.client();
    let subscribe = |channel: &str| json!({"type": "subscribe", "channel": channel});
    let mut with_token = subscribe("b");
    with_token["token"] = json!(token(Role::Subscriber, "acme", &["*"]));
    let heard = client.ask_all(&[subscribe("a"), with_token, subscribe("c")]).await;
    let kinds: Vec<_> = heard.iter().map(|heard| heard["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["error", "answer", "answer"]);
    assert_eq!(client.reads(), [("acme:b", Cursor::START), ("acme:c", Cursor::START)]);
}

#[tokio::test]
async fn what_has_expired_allows_nothing() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    // A minute, and the leeway; the edge closes the socket at about the same moment.
    client.now_ms = (NOW_S + 120) * 1000;
    assert_eq!(client.ask(&json!({"type": "head", "channel": "a"})).await["type"], "answer");
    client.now_ms += 1000;
    for kind in ["head", "history", "subscribe", "publish"] {
        let heard = client.ask(&json!({"type": kind, "channel": "a"})).await;
        let expected = [json!("invalid_token"), json!("Token expired")];
        assert_eq!([&heard["code"], &heard["message"]], [&expected[0], &expected[1]]);
    }
    let heard = client.ask(&subscriber(&["*"], NOW_S + 121)).await;
    // The publisher's has expired, and ends the socket at once.
    assert_eq!(heard["result"], json!({"expires": NOW_S + 120}));
    assert_eq!(client.expires.after, Some(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_token_of_both_kinds_counts_for_both() {
    let bench = Bench::of_one_secret().await;
    // By their claims both are of both kinds.
    for role in [Role::Subscriber, Role::Publisher] {
        let mut client = bench.client_with(&[&token(role, "acme", &["a*", "b"])]).await;
        for kind in ["subscribe", "publish", "history", "head"] {
            let heard = client.ask(&json!({"type": kind, "channel": "a1"})).await;
            assert_eq!(heard["type"], "answer", "{heard}");
            let refused = client.refused(&json!({"type": kind, "channel": "c"})).await;
            assert_eq!(refused, permanent("forbidden"));
        }
        assert_eq!(client.expires.after, Some(Duration::from_secs(120)));
        // It covers less for both.
        assert_eq!(client.refused(&subscriber(&["b"], NOW_S)).await, permanent("invalid_token"));
        let heard = client.ask(&publisher(&["a*", "b", "c"], NOW_S + 50)).await;
        assert_eq!(heard["result"], json!({"expires": NOW_S + 170}));
        for kind in ["head", "publish"] {
            let heard = client.ask(&json!({"type": kind, "channel": "c"})).await;
            assert_eq!(heard["type"], "answer", "{heard}");
        }
    }
    // Without channels it is no subscriber's.
    let everything = token(Role::Publisher, "acme", &[]);
    let mut client = bench.client_with(&[&everything]).await;
    let head = json!({"type": "head", "channel": "a"});
    assert_eq!(client.refused(&head).await, permanent("unauthorized"));
    // What is less than the publisher's is all there is of a reader's. It takes the place of nothing.
    assert_eq!(client.ask(&subscriber(&["a"], NOW_S)).await["type"], "answer");
    assert_eq!(client.ask(&head).await["type"], "answer");
    assert_eq!(client.ask(&json!({"type": "publish", "channel": "b"})).await["type"], "answer");
    // As many channels fit as of a token of one kind.
    let names: Vec<String> = (0..20).map(|n| format!("{n:0>36}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bench.client_with(&[&token(Role::Subscriber, "acme", &names)]).await;
    let heard = bench.client().ask(&subscriber(&["a"], NOW_S - 121)).await;
    assert_eq!(heard["message"], "Token expired");
}

#[tokio::test]
async fn a_token_of_a_request_that_is_wrong_counts() {
    let bench = Bench::new().await;
    let mut client = bench.client();
    let reader = token(Role::Subscriber, "acme", &["a"]);
    let writer = token(Role::Publisher, "acme", &["a"]);
    let heard = client
        .ask_all(&[
            json!({"type": "subscribe", "channel": "a b", "token": reader, "id": 1}),
            json!({"type": "head", "channel": "a"}),
            json!({"type": "publish", "channel": 7, "token": writer, "id": true}),
            json!({"type": "publish", "channel": "a"}),
            json!({"type": "publish", "ack": "x", "token": "x", "id": 2}),
            json!({"type": "publish", "channel": "a"}),
        ])
        .await;
    let codes: Vec<_> = heard.iter().map(|heard| heard["code"].as_str()).collect();
    let (bad, spoilt) = (Some("bad_request"), Some("invalid_token"));
    assert_eq!(codes, [bad, None, bad, None, spoilt, None]);
    assert_eq!((&heard[0]["id"], &heard[4]["id"]), (&json!(1), &json!(2)));
    assert_eq!(client.expires.after, Some(Duration::from_secs(120)));
    assert_eq!(client.ask(&json!({"type": "head", "channel": "a"})).await["type"], "answer");
    // The one whose id is wrong is not known as something to publish.
    assert_eq!(bench.outcomes(), [("accepted", "stored", 2), ("invalid", "token", 1)]);
}

#[tokio::test]
async fn who_tries_too_many_tokens_is_sent_away() {
    let bench = Bench::new().await;
    let max = usize::from(REFUSED_TOKENS_MAX);
    let (bad, ping) = (json!({"type": "refresh", "token": "x"}), json!({"type": "ping"}));
    // One that is taken begins anew, in whichever packet it is.
    let mut client = bench.client();
    for _ in 0..3 {
        client.ask_all(&vec![bad.clone(); max - 1]).await;
        assert_eq!(client.ask(&subscriber(&["*"], NOW_S)).await["type"], "answer");
    }
    // They count from packet to packet, also of what is no request, and others do not stop it.
    for _ in 0..max / 2 - 1 {
        client.ask_all(&[bad.clone(), ping.clone()]).await;
        client.ask_all(&[json!({"type": "x", "token": "x"}), ping.clone()]).await;
    }
    assert_eq!(client.ask(&bad).await["code"], "invalid_token");
    let subscribe = json!({"type": "subscribe", "channel": "a"});
    let unsubscribe = json!({"type": "unsubscribe", "channel": "b"});
    let said = [&subscribe, &unsubscribe, &bad, &ping, &subscribe].map(Value::to_string);
    let said = client.said(&said);
    let answer = bench.sockets.message(&said, NOW_MS).await;
    let reason = "Too many tokens were refused".to_owned();
    assert_eq!(answer.close, Some(Close { code: 3500, reason }));
    // What came before is answered, what is behind is not done.
    let types: Vec<Value> =
        answer.bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(types.len(), 3);
    assert_eq!((&types[1]["type"], &types[2]["code"]), (&json!("answer"), &json!("invalid_token")));
    assert_eq!(
        (&answer.remove[..], answer.add.len()),
        (&["acme:a", "acme:b"].map(str::to_owned)[..], 0)
    );
    // Whoever hears it after that closes it, too; and who does this again says the same.
    assert_eq!(bench.sockets.message(&said, NOW_MS).await, answer);
    client.context = answer.context.unwrap();
    let said = client.said(&[ping.to_string()]);
    assert_eq!(bench.sockets.message(&said, NOW_MS).await, Answer::close(3500, ""));
    // In one packet.
    let many = vec![bad.to_string(); 1000];
    let answer = bench.sockets.message(&bench.client().said(&many), NOW_MS).await;
    assert_eq!((answer.bodies.len(), answer.close.unwrap().code), (max, 3500));
}
