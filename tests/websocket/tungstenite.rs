//! The third peer: tokio-tungstenite, on a thread of its own.

use std::sync::mpsc::{self, Receiver, Sender};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc as tokio_mpsc;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::support::PATIENCE;

type Connection = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Ends when it is dropped.
pub struct Tungstenite {
    commands: tokio_mpsc::UnboundedSender<Value>,
    happened: Receiver<Value>,
}

impl Tungstenite {
    pub fn start() -> Tungstenite {
        let (commands, told) = tokio_mpsc::unbounded_channel();
        let (say, happened) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(run(told, say));
        });
        Tungstenite { commands, happened }
    }

    pub fn tell(&self, command: Value) {
        self.commands.send(command).unwrap();
    }

    #[track_caller]
    pub fn hear(&self) -> Value {
        self.happened
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("nothing comes: {error}"))
    }

    pub fn heard_now(&self) -> Option<Value> {
        self.happened.try_recv().ok()
    }
}

async fn run(mut told: tokio_mpsc::UnboundedReceiver<Value>, say: Sender<Value>) {
    let mut connection: Option<Connection> = None;
    loop {
        tokio::select! {
            command = told.recv() => match command {
                None => return,
                Some(command) if command["do"] == "open" => {
                    let (opened, how) = open(&command).await;
                    connection = opened;
                    // Who does not listen any more has ended.
                    let _ = say.send(how);
                }
                Some(command) => {
                    let open = connection.as_mut().expect("it is not open");
                    // A connection that is lost is told where it is read.
                    let _ = open.send(message(&command)).await;
                }
            },
            message = next(&mut connection) => {
                let happened = match message {
                    Some(Ok(Message::Text(text))) => json!({"text": text.as_str()}),
                    Some(Ok(Message::Binary(data))) => json!({"binary": hex(&data)}),
                    Some(Ok(Message::Pong(data))) => json!({"pong": hex(&data)}),
                    Some(Ok(Message::Close(close))) => {
                        finish(connection.take()).await;
                        json!({"closed": close.map(|CloseFrame { code, reason }| {
                            json!({"code": u16::from(code), "reason": reason.as_str()})
                        })})
                    }
                    Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                    Some(Err(_)) | None => {
                        connection = None;
                        json!({"closed": null})
                    }
                };
                let _ = say.send(happened);
            }
        }
    }
}

/// The next message, of a connection that is there.
async fn next(connection: &mut Option<Connection>) -> Option<Result<Message, Error>> {
    match connection {
        Some(connection) => connection.next().await,
        None => std::future::pending().await,
    }
}

/// Reads a connection whose close has come to its end, by which the answer to it is written.
async fn finish(connection: Option<Connection>) {
    if let Some(mut connection) = connection {
        while let Some(Ok(_)) = connection.next().await {}
    }
}

async fn open(command: &Value) -> (Option<Connection>, Value) {
    let uri = command["url"].as_str().unwrap().parse().unwrap();
    let mut request = ClientRequestBuilder::new(uri);
    for (name, value) in command["headers"].as_object().unwrap() {
        request = request.with_header(name, value.as_str().unwrap());
    }
    for name in command["protocols"].as_array().unwrap() {
        request = request.with_sub_protocol(name.as_str().unwrap());
    }
    assert_eq!(command["compression"], false, "it knows no compression");
    let limits = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    match connect_async_with_config(request, Some(limits), true).await {
        Ok((connection, response)) => {
            let header = |name: &str| {
                let value = response.headers().get(name);
                value.map(|value| value.to_str().unwrap().to_owned())
            };
            let opened = json!({
                "protocol": header("sec-websocket-protocol"),
                "extensions": header("sec-websocket-extensions"),
                "tls": null
            });
            (Some(connection), json!({"opened": opened}))
        }
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let body = String::from_utf8(body).unwrap();
            (None, json!({"refused": {"status": response.status().as_u16(), "body": body}}))
        }
        Err(error) => (None, json!({"failed": error.to_string()})),
    }
}

/// What a command sends.
fn message(command: &Value) -> Message {
    let text = |name: &str| command[name].as_str().unwrap();
    match text("do") {
        "text" => Message::text(text("text")),
        "binary" => Message::binary(unhex(text("hex"))),
        "ping" => Message::Ping(Bytes::from(unhex(text("hex")))),
        "close" => {
            let code = u16::try_from(command["code"].as_u64().unwrap()).unwrap();
            Message::Close(Some(CloseFrame { code: code.into(), reason: text("reason").into() }))
        }
        other => panic!("no such command: {other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}
