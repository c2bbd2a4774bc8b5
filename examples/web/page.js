// The page: fields in, events out. What is shown came from a network, so all of it goes in as text, never as markup, and
// everything that grows has a limit.

"use strict";

/** Rows of the log; the oldest go. */
const LOG_ROWS_MAX = 500;

/** Pieces of text that the flow of a channel shows; the oldest go. */
const FLOW_PIECES_MAX = 2000;

/** Characters of an event's content in the log. An event is up to 16 KiB. */
const LOG_TEXT_CHARS_MAX = 200;

const byId = (id) => document.getElementById(id);

const connection = byId("connection");
const publishing = byId("publish");

/** An element with a class and text. */
function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

/** Removes what came first, until there are no more than that many children. */
function trimStart(parent, childrenMax) {
  while (parent.childElementCount > childrenMax) {
    parent.firstElementChild.remove();
  }
}

/** The text of a channel, as it flows: a paragraph of pieces from START to END, and a mark where something is missing. */
class Flow {
  #text = element("div", "text");
  #phase = element("span", "phase", "–");

  constructor(channel, parent) {
    const box = element("article", "flow");
    box.dataset.channel = channel;
    const title = element("h3", "");
    title.append(element("span", "name", channel), this.#phase);
    box.append(title, this.#text);
    parent.append(box);
  }

  show({ kind, data }) {
    if (kind === "control") {
      this.#mark(data);
      return;
    }
    const phase = data.phase.replace("PHASE_", "");
    this.#phase.textContent = phase;
    if (phase === "START" && this.#text.childElementCount > 0) {
      this.#add(element("br", ""));
    }
    const value = data.payload?.value;
    if (typeof value === "string") {
      this.#add(element("span", "piece", value));
    } else if (data.payload) {
      this.#add(element("span", "piece json", JSON.stringify(data.payload)));
    }
    if (phase === "END") {
      this.#add(element("span", "mark end", "END"));
    }
  }

  #mark(data) {
    const text = data.control_type === "gap" ? `gap: ${data.from} … ${data.to} (${data.reason})` : data.control_type;
    this.#add(element("span", `mark ${data.control_type === "gap" ? "gap" : "control"}`, text));
  }

  #add(piece) {
    this.#text.append(piece);
    trimStart(this.#text, FLOW_PIECES_MAX);
    this.#text.scrollTop = this.#text.scrollHeight;
  }
}

/** What happens to one client, on the page. */
class View {
  #counts = { events: 0, disconnects: 0, resumes: 0, gaps: 0 };
  #flows = new Map();

  constructor(channels) {
    byId("flows").replaceChildren();
    byId("log").replaceChildren();
    byId("cursor").textContent = "–";
    for (const name of Object.keys(this.#counts)) {
      byId(name).textContent = "0";
    }
    for (const channel of channels) {
      this.#flows.set(channel, new Flow(channel, byId("flows")));
    }
  }

  state(name, detail) {
    byId("state").textContent = name;
    byId("state").dataset.state = name;
    byId("detail").textContent = detail;
    const isOver = name === "stopped" || name === "refused" || name === "ended";
    byId("stop").disabled = isOver;
    publishing.querySelector("button").disabled = isOver && name !== "ended";
  }

  disconnected() {
    this.#count("disconnects");
  }

  resumed() {
    this.#count("resumes");
  }

  event(event) {
    const { kind, channel, cursor, data } = event;
    if (kind === "stream") {
      this.#count("events");
    } else if (data.control_type === "gap") {
      this.#count("gaps");
    }
    byId("cursor").textContent = cursor;
    this.#flows.get(channel)?.show(event);
    this.#log(event);
  }

  #count(name) {
    this.#counts[name] += 1;
    byId(name).textContent = this.#counts[name];
  }

  /** The newest is on top. */
  #log({ kind, channel, cursor, data }) {
    // What an event says beside what the other columns show.
    const { event_type: _event, message_id: _id, control_type, phase, payload, ...words } = data;
    const [type, content] = kind === "control" ? [control_type, words] : [phase.replace("PHASE_", ""), payload ?? {}];
    const row = element("tr", kind);
    row.append(
      element("td", "time", new Date().toLocaleTimeString()),
      element("td", "channel", channel),
      element("td", "cursor", cursor),
      element("td", "type", type),
      element("td", "content", JSON.stringify(content).slice(0, LOG_TEXT_CHARS_MAX)),
    );
    const log = byId("log");
    log.prepend(row);
    while (log.rows.length > LOG_ROWS_MAX) {
      log.lastElementChild.remove();
    }
  }
}

let client = null;

/** Leaves what is read now, and reads what the fields say. */
function start() {
  client?.stop();
  const fields = connection.elements;
  const channels = [...new Set(fields.channel.value.split(/[\s,]+/).filter(Boolean))];
  const options = {
    edge: fields.edge.value.trim(),
    org: fields.org.value.trim(),
    channels,
    from: fields.from.value.trim(),
    token: () => fields.token.value.trim(),
    publishToken: () => publishing.elements.publish_token.value.trim(),
  };
  publishing.elements.channel.replaceChildren(...channels.map((name) => new Option(name)));
  const Client = fields.transport.value === "ws" ? SocketClient : EventStreamClient;
  client = new Client(options, new View(channels));
  client.start();
}

async function publish() {
  const { phase, text } = publishing.elements;
  const message = { phase: phase.value };
  if (text.value !== "") {
    message.payload = { value: text.value };
  }
  text.value = "";
  const told = byId("published");
  told.textContent = "…";
  try {
    const { id } = await client.publish(publishing.elements.channel.value, message);
    told.textContent = `stored as ${id}`;
  } catch (error) {
    told.textContent = `not stored: ${error.message}`;
  }
}

/** Fills in the fields that the fragment names, and starts if that is enough. */
function readFragment() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  for (const form of [connection, publishing]) {
    for (const name of new Set(fragment.keys())) {
      const field = form.elements[name];
      if (field !== undefined && (form === connection || name === "publish_token")) {
        // Several channels may come as several of that name.
        field.value = fragment.getAll(name).join(", ");
      }
    }
  }
  if (fragment.has("token") && connection.reportValidity()) {
    start();
  }
}

connection.addEventListener("submit", (event) => {
  event.preventDefault();
  start();
});
publishing.addEventListener("submit", (event) => {
  event.preventDefault();
  publish();
});
byId("stop").addEventListener("click", () => client.stop());
// A socket need not be closed to get a new token. An event stream has the one that it began with; a reconnect of ours
// takes the new one.
connection.elements.token.addEventListener("change", (event) => {
  if (client instanceof SocketClient) {
    client.refresh(event.target.value.trim()).catch((error) => (byId("detail").textContent = error.message));
  }
});
window.addEventListener("hashchange", readFragment);
readFragment();
