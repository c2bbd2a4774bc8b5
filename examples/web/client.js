// Reading channels as server-sent events, publishing over HTTP, and what both transports share.
//
// EventStreamClient and SocketClient (socket.js) are used alike:
//
//   const client = new EventStreamClient({ edge, org, channels, from, token, publishToken }, listener);
//   client.start();
//   await client.publish("demo", { phase: "PHASE_DELTA", payload: { value: "hello" } });
//   client.stop();
//
// `token` and `publishToken` are functions, as tokens expire: they are asked for the one of this moment. The listener has
//
//   state(name, detail)   connecting, open, waiting (it comes back by itself), ended (so has every channel),
//                         refused (for good: `detail` says why), stopped
//   event({ channel, kind, data, cursor })   kind is "stream" or "control"; cursor is where a reader stands behind it
//   disconnected()        a connection that was open is lost
//   resumed()             one that was lost is open again, and goes on at the cursor
//
// Nothing here looks for repeated or missing events: the edge sends each once and in order from wherever the cursor is,
// and what is not kept any more comes as a control event, `gap`. All that a client must do is to keep its cursor.

"use strict";

/** Waits between attempts: twice as long each time, and partly by chance, so that a crowd does not come back as one. */
class Backoff {
  static FIRST_MS = 500;
  static MAX_MS = 15_000;

  #attempts = 0;

  /** The next wait, in milliseconds. */
  next() {
    const limit = Math.min(Backoff.MAX_MS, Backoff.FIRST_MS * 2 ** this.#attempts);
    this.#attempts += 1;
    return limit / 2 + (Math.random() * limit) / 2;
  }

  reset() {
    this.#attempts = 0;
  }
}

/** Whether a client has a connection, told to its listener as that changes. */
class Presence {
  #listener;
  #isOpen = false;
  #wasOpen = false;

  constructor(listener) {
    this.#listener = listener;
  }

  get isOpen() {
    return this.#isOpen;
  }

  /** A connection is open. */
  open() {
    this.#isOpen = true;
    this.#listener.state("open", "");
    if (this.#wasOpen) {
      this.#listener.resumed();
    }
    this.#wasOpen = true;
  }

  /** There is none any more, and that was not our will. */
  lose() {
    if (this.#isOpen) {
      this.#listener.disconnected();
    }
    this.#isOpen = false;
  }

  /** We have left it. */
  leave() {
    this.#isOpen = false;
  }
}

/**
 * A random UUID for a message. Who sends a message again with the same one stores it once. (crypto.randomUUID is missing
 * on pages from plain http, but for localhost.)
 */
function newMessageId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40; // version 4
  bytes[8] = (bytes[8] & 0x3f) | 0x80; // variant of RFC 9562
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** A URL of the edge: `path` are its segments, `query` pairs, of which those without a value are left out. */
function edgeUrl(edge, path, query = []) {
  const url = new URL(`${edge.replace(/\/+$/, "")}/${path.map(encodeURIComponent).join("/")}`);
  for (const [name, value] of query) {
    if (value) {
      url.searchParams.append(name, value);
    }
  }
  return url;
}

/** Whether an event ends its channel: END, or the words of Forebay that stand for one. */
function endsChannel({ kind, data }) {
  return kind === "control"
    ? data.control_type === "expired" || data.control_type === "deleted"
    : data.phase === "PHASE_END";
}

/** What was asked for is not done, and asking again would not help. */
class RequestError extends Error {}

/** How often a message is sent before we give up: for about a minute. */
const PUBLISH_ATTEMPTS_MAX = 8;

/**
 * Publishes a message; resolves to `{ id }`. It is sent again, as the same message, while it is not known to be stored and
 * another attempt may help: nobody could be reached, the handler was lost (502), the store is away (503), the channel is
 * too fast (429).
 */
async function publishOverHttp({ edge, org, publishToken }, channel, message) {
  const url = edgeUrl(edge, ["publish", org, channel]);
  const body = JSON.stringify({ message_id: newMessageId(), ...message });
  const backoff = new Backoff();
  for (let attempt = 1; ; attempt += 1) {
    let problem;
    try {
      const headers = { "Content-Type": "application/json", Authorization: `Bearer ${publishToken()}` };
      const response = await fetch(url, { method: "POST", headers, body, referrerPolicy: "no-referrer" });
      const text = await response.text();
      if (response.ok) {
        return { id: text };
      }
      problem = `${response.status} ${text}`;
      if (![429, 502, 503, 504].includes(response.status)) {
        throw new RequestError(problem);
      }
    } catch (error) {
      if (error instanceof RequestError) {
        throw error;
      }
      problem = "the edge cannot be reached";
    }
    if (attempt === PUBLISH_ATTEMPTS_MAX) {
      throw new RequestError(problem);
    }
    await new Promise((resolve) => setTimeout(resolve, backoff.next()));
  }
}

/**
 * Reads channels by an EventSource, which comes back by itself with the id of the last event that it had.
 *
 * What an EventSource does not do, and what is therefore done here: it gives up for good when an answer is not an event
 * stream (a proxy's 502, an expired token, the 204 behind the end of all channels), and does not tell which it was.
 */
class EventStreamClient {
  #options;
  #listener;
  #source = null;
  #timer = null;
  #inquiry = null; // ends the request that finds out why we were sent away
  #backoff = new Backoff();
  #cursor = ""; // of all channels together; opaque if they are several
  #presence;
  #ended = new Set();

  constructor(options, listener) {
    this.#options = options;
    this.#listener = listener;
    this.#presence = new Presence(listener);
  }

  start() {
    this.#connect();
  }

  stop() {
    this.#leave();
    this.#listener.state("stopped", "");
  }

  publish(channel, message) {
    return publishOverHttp(this.#options, channel, message);
  }

  #url() {
    const { edge, org, channels, from, token } = this.#options;
    const query = channels.map((channel) => ["channel_id", channel]);
    // An EventSource cannot set a header, so the token is in the query. Forebay keeps it out of every log; see that what
    // stands before it does, too. Once we have a cursor of our own, we begin there and not at `from`.
    query.push(["token", token()], ["last_event_id", this.#cursor || from]);
    return edgeUrl(edge, ["events", org], query);
  }

  #connect() {
    this.#listener.state("connecting", "");
    const source = new EventSource(this.#url());
    this.#source = source;
    source.onopen = () => this.#opened();
    source.onerror = () => this.#failed(source.readyState === EventSource.CLOSED);
    for (const kind of ["stream", "control"]) {
      source.addEventListener(kind, (message) => this.#received(kind, message));
    }
  }

  #opened() {
    this.#backoff.reset();
    this.#presence.open();
  }

  #received(kind, message) {
    const data = JSON.parse(message.data);
    // A control event about all of the connection has no channel, and may have no id of its own.
    const event = { kind, data, channel: data.channel_id ?? data.channel ?? "", cursor: message.lastEventId };
    this.#cursor = message.lastEventId;
    if (endsChannel(event)) {
      this.#ended.add(event.channel);
    } else if (kind === "stream") {
      this.#ended.delete(event.channel);
    }
    this.#listener.event(event);
  }

  #failed(isForGood) {
    const hasEnded = this.#options.channels.every((channel) => this.#ended.has(channel));
    const problem = this.#presence.isOpen ? "the connection was lost" : "the edge cannot be reached";
    // The end of the stream behind the end of all channels is no loss of a connection.
    if (hasEnded) {
      this.#presence.leave();
    } else {
      this.#presence.lose();
    }
    if (!isForGood) {
      this.#listener.state("waiting", hasEnded ? "all channels have ended" : problem);
    } else if (hasEnded) {
      this.#finish("ended", "all channels have ended");
    } else {
      this.#inquire();
    }
  }

  /** Asks again, by fetch, which shows the status, and decides whether to come back. */
  async #inquire() {
    const inquiry = new AbortController();
    this.#inquiry = inquiry;
    let status = 0;
    let text = "sent away, for a reason that is not for pages";
    try {
      const headers = { Accept: "text/event-stream" };
      const response = await fetch(this.#url(), { headers, signal: inquiry.signal, cache: "no-store" });
      status = response.status;
      // The body of a 200 would not end.
      text = response.ok ? "" : `${status} ${await response.text()}`;
    } catch {
      // Nobody is there, or the answer says nothing of other origins (as those of a proxy, or of an edge that has no
      // handler just now), or stop() was called.
    }
    if (this.#inquiry !== inquiry) {
      return;
    }
    inquiry.abort();
    if (status === 204) {
      this.#finish("ended", "all channels have ended");
    } else if (status >= 400 && status < 500 && status !== 408 && status !== 429) {
      this.#finish("refused", text);
    } else {
      this.#finish("waiting", text);
      this.#timer = setTimeout(() => this.#connect(), this.#backoff.next());
    }
  }

  #finish(state, detail) {
    this.#leave();
    this.#listener.state(state, detail);
  }

  #leave() {
    this.#source?.close();
    this.#source = null;
    this.#presence.leave();
    clearTimeout(this.#timer);
    const inquiry = this.#inquiry;
    this.#inquiry = null;
    inquiry?.abort();
  }
}
