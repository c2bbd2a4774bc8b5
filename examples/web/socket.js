// Reading and publishing over one WebSocket: the protocol of docs/channels.md, section "WebSocket".
//
// SocketClient is used as EventStreamClient of client.js is. In addition to that
//
// * each channel has a cursor of its own, and a reconnect subscribes with it;
// * what is published and not answered yet when a connection is lost is sent again on the next one. It has the same
//   message_id, so it is stored once;
// * a new token of the reader can be handed in while it is open (`refresh`), before the old one ends.

"use strict";

/** After so long without a word of the edge we ask whether it is there. A page does not see the pings of the protocol. */
const SILENCE_MS_MAX = 25_000;

/** After so long without an answer to that, the connection is taken to be lost. */
const ANSWER_MS_MAX = 10_000;

/** Close codes after which a client comes back; so it does after 3000 to 3499. Browsers say 1006 if no close came at all. */
const TRANSIENT_CLOSES = [1001, 1006, 1011, 1012, 1013];

function isTransientClose(code) {
  return TRANSIENT_CLOSES.includes(code) || (code >= 3000 && code <= 3499);
}

class SocketClient {
  #options;
  #listener;
  #socket = null;
  #timer = null; // until the next attempt
  #watchdog = null; // until the edge has been silent for too long
  #backoff = new Backoff();
  #cursors = new Map(); // by channel: where to go on
  #nextId = 1;
  // What has not been answered, by id, in the order of sending: { request, isPublish, refusals, resolve, reject }.
  #requests = new Map();
  #subscribed = new Set(); // on this connection
  #presence;
  #publishTokenSent = ""; // on this connection
  #isGreeted = false; // `open` has come on this connection
  #complaint = ""; // the error that came in place of it: it tells why a close follows
  #end = ""; // why we have finished, if we have

  constructor(options, listener) {
    this.#options = options;
    this.#listener = listener;
    this.#presence = new Presence(listener);
  }

  start() {
    this.#end = "";
    this.#connect();
  }

  stop() {
    this.#finish("stopped", "");
  }

  /** Publishes a message; resolves to `{ id }`, over however many connections that takes. */
  publish(channel, message) {
    return this.#ask({ type: "publish", channel, message_id: newMessageId(), ...message }, true);
  }

  /** Hands in a new token of the reader; resolves to when that ends. */
  refresh(token) {
    return this.#ask({ type: "refresh", token }, false);
  }

  #connect() {
    const { edge, org, token } = this.#options;
    this.#listener.state("connecting", "");
    const url = edgeUrl(edge, ["ws", org]);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    let socket;
    try {
      // The one way for a page to say something in the handshake that is not in the URL.
      socket = new WebSocket(url, ["forebay.v1", `forebay.token.${token()}`]);
    } catch (error) {
      this.#finish("refused", `no such connection can be made: ${error.message}`);
      return;
    }
    this.#socket = socket;
    // Nothing of a connection that we have left concerns us.
    const ifCurrent = (handle) => (event) => socket === this.#socket && handle(event);
    socket.onmessage = ifCurrent(({ data }) => this.#received(JSON.parse(data)));
    socket.onclose = ifCurrent(({ code, reason }) => this.#closed(code, reason));
    this.#watch();
  }

  #received(message) {
    this.#watch();
    switch (message.type) {
      case "open":
        this.#isGreeted = true;
        this.#subscribeAll();
        break;
      case "event":
        this.#cursors.set(message.channel, message.cursor);
        this.#listener.event({
          channel: message.channel,
          kind: message.event,
          data: message.data,
          cursor: message.cursor,
        });
        break;
      case "answer":
        this.#answered(message.id, (request) => request.resolve(message.result));
        break;
      case "error":
        // One that is neither an answer nor in place of `open` explains nothing that comes later.
        if (!this.#answered(message.id, (request) => this.#refused(request, message)) && !this.#isGreeted) {
          this.#complaint = message.message;
        }
        break;
      default:
      // A newer edge may say more than we know.
    }
  }

  /** The connection is there: readers go on where they were, and what was not answered is sent again. */
  #subscribeAll() {
    const unanswered = [...this.#requests.values()];
    this.#requests.clear();
    for (const channel of this.#options.channels) {
      this.#subscribe(channel);
    }
    for (const entry of unanswered) {
      this.#send(this.#enlist(entry));
    }
  }

  async #subscribe(channel) {
    const socket = this.#socket;
    const cursor = this.#cursors.get(channel) ?? this.#options.from;
    try {
      const begins = await this.#ask({ type: "subscribe", channel, ...(cursor && { cursor }) }, false);
      // Of use before the first event: `$` becomes a place, to which we can come back.
      if (!this.#cursors.has(channel)) {
        this.#cursors.set(channel, begins.cursor);
      }
    } catch (error) {
      if (socket === this.#socket) {
        this.#finish("refused", `${channel}: ${error.message}`);
      }
      return;
    }
    this.#subscribed.add(channel);
    if (this.#subscribed.size === this.#options.channels.length && !this.#presence.isOpen) {
      this.#backoff.reset();
      this.#presence.open();
    }
  }

  /** Sends a request, now or on the next connection; resolves to its result. Rejects at once if there will be none. */
  #ask(request, isPublish) {
    if (this.#end !== "") {
      return Promise.reject(new RequestError(this.#end));
    }
    return new Promise((resolve, reject) => this.#send(this.#enlist({ request, isPublish, refusals: 0, resolve, reject })));
  }

  /** Makes a request one that is not answered; its id. */
  #enlist(entry) {
    const id = this.#nextId;
    this.#nextId += 1;
    this.#requests.set(id, entry);
    return id;
  }

  /** Sends the request with that id, if it is still wanted and can be sent now. */
  #send(id) {
    const entry = this.#requests.get(id);
    if (entry === undefined || this.#socket?.readyState !== WebSocket.OPEN) {
      return;
    }
    const message = { ...entry.request, id };
    // The handshake has brought the token of the reader; that of the publisher comes with the first message that needs it.
    if (entry.isPublish && this.#publishTokenSent !== this.#options.publishToken()) {
      this.#publishTokenSent = this.#options.publishToken();
      message.token = this.#publishTokenSent;
    }
    this.#socket.send(JSON.stringify(message));
  }

  /** Takes the request with that id out; whether there is one. */
  #answered(id, handle) {
    const entry = this.#requests.get(id);
    this.#requests.delete(id);
    if (entry !== undefined) {
      handle(entry);
    }
    return entry !== undefined;
  }

  #refused(entry, { kind, message, data }) {
    entry.refusals += 1;
    // What is read is asked for again until it comes.
    if (kind !== "transient" || (entry.isPublish && entry.refusals === PUBLISH_ATTEMPTS_MAX)) {
      entry.reject(new RequestError(message));
      return;
    }
    const wait = data?.retry_after === undefined ? this.#backoff.next() : data.retry_after * 1000;
    const id = this.#enlist(entry);
    // If the connection is lost before, it is sent on the next one, by another id, and this is nothing.
    setTimeout(() => this.#send(id), wait);
  }

  #closed(code, reason) {
    const why = this.#complaint || reason;
    if (isTransientClose(code)) {
      this.#lost(code === 1006 ? "the connection was lost" : `closed with ${code} ${why}`);
    } else {
      this.#finish("refused", `closed with ${code} ${why}`);
    }
  }

  /** Comes back in a while. */
  #lost(detail) {
    this.#presence.lose();
    this.#leave();
    for (const [id, { isPublish, reject }] of this.#requests) {
      if (!isPublish) {
        this.#requests.delete(id);
        reject(new RequestError(detail));
      }
    }
    this.#listener.state("waiting", detail);
    this.#timer = setTimeout(() => this.#connect(), this.#backoff.next());
  }

  #finish(state, detail) {
    if (state !== "stopped") {
      this.#presence.lose();
    }
    this.#leave();
    this.#end = detail || state;
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    for (const { reject } of requests) {
      reject(new RequestError(this.#end));
    }
    this.#listener.state(state, detail);
  }

  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    this.#presence.leave();
    this.#subscribed.clear();
    this.#publishTokenSent = "";
    this.#isGreeted = false;
    this.#complaint = "";
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
    socket?.close();
  }

  /** The edge is there: looks again in a while. (A page in the background may be a minute late; that does no harm.) */
  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      if (this.#socket?.readyState === WebSocket.OPEN) {
        this.#socket.send(JSON.stringify({ type: "ping" }));
      }
      this.#watchdog = setTimeout(() => this.#lost("the edge is silent"), ANSWER_MS_MAX);
    }, SILENCE_MS_MAX);
  }
}
