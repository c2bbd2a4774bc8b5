// A WebSocket client made of npm's `ws`. The protocol between it and the test stands in `peer.rs`.
"use strict";

const fs = require("node:fs");
const readline = require("node:readline");
const { WebSocket } = require("ws");

const NO_CODE = 1005;
const LOST = 1006;

let socket = null;

function say(answer) {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

function tlsOptions({ ca, tls }) {
  const versions = tls === null ? {} : { minVersion: `TLSv${tls}`, maxVersion: `TLSv${tls}` };
  return { ...versions, ...(ca === null ? {} : { ca: fs.readFileSync(ca) }) };
}

// Connects, says how that went, and then what comes.
function open({ url, headers, protocols, compression, ca, tls }) {
  // Whatever is short is compressed, too, as soon as that is agreed upon.
  const perMessageDeflate = compression && { threshold: 0 };
  const options = { headers, perMessageDeflate, ...tlsOptions({ ca, tls }) };
  socket = new WebSocket(url, protocols, options);
  let response = null;
  let isOver = false;
  socket.on("upgrade", (upgraded) => {
    response = upgraded;
  });
  socket.on("open", () => {
    const connection = response.socket;
    say({
      opened: {
        protocol: socket.protocol || null,
        extensions: response.headers["sec-websocket-extensions"] ?? null,
        tls: connection.encrypted ? connection.getProtocol() : null,
      },
    });
  });
  socket.on("unexpected-response", (request, refused) => {
    isOver = true;
    let body = "";
    refused.setEncoding("utf8");
    refused.on("data", (piece) => (body += piece));
    refused.on("end", () => say({ refused: { status: refused.statusCode, body } }));
  });
  socket.on("error", (error) => {
    // After the handshake the close tells it.
    if (response === null && !isOver) say({ failed: String(error) });
    isOver ||= response === null;
  });
  socket.on("message", (data, isBinary) => say(isBinary ? { binary: data.toString("hex") } : { text: data.toString() }));
  socket.on("pong", (data) => say({ pong: data.toString("hex") }));
  socket.on("close", (code, reason) => {
    if (isOver) return;
    say({ closed: code === NO_CODE || code === LOST ? null : { code, reason: reason.toString() } });
  });
}

const commands = {
  open,
  text: ({ text }) => socket.send(text),
  binary: ({ hex }) => socket.send(Buffer.from(hex, "hex")),
  ping: ({ hex }) => socket.ping(Buffer.from(hex, "hex")),
  close: ({ code, reason }) => socket.close(code, reason),
};

const lines = readline.createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const { do: name, ...command } = JSON.parse(line);
  commands[name](command);
});
lines.on("close", () => process.exit());
