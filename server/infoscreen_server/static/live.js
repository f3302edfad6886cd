// Follows what the server commits. Nothing here is needed to read a page: it only saves pressing reload.
//
// An element with [data-refresh] and an id is fetched again when a client's state changes, and every 30 s; one with
// data-refresh="shown" at once only for a client that the page has as #c-<uuid>, and now and then for one that is not as
// it should be; with "slow" only every 30 s, with "fallback" only as long as there is no stream. data-client="<uuid>"
// beside it: of this client only.
// An element with [data-stream] (the address) shows log lines; within it:
//   [data-live-state]   where the state is told, in the words of data-connecting, data-live, data-paused ({n} lines wait),
//                       data-reconnecting, data-fallback, data-ended, data-dropped and data-dropped-about ({n} lines)
//   [data-live-pause]   a button, hidden without this script; data-resume is its other word
//   [data-live-rows]    where the lines go, each with the id log-<number>: the last that came first; with "time" the newest
//                       by data-place, "<timestamp>/<number>"
//   a[data-live-older]  leads on from the last line, with its place as `before`; in a hidden <nav> where none are older
//   template[data-row=LEVEL]  one line, with [data-field]: timestamp, message, code, context, client and link (<a>), copy
//   [data-live-empty]   shown as long as there is no line
// templates/_live.html has all of it.

const REFRESH_MS = 30000, FIRST_MS = 250, SOON_MS = 2000, TIMES = 10, LATEST_MS = 60000, AGAIN_MS = 30000, MAX_ROWS = 500;
// One that comes and goes must not make all pages that do not even show it ask again and again.
const STRANGER_MS = 20000;

// The very module that the page has loaded: another address would be another copy of it.
const { refresh, timeElement } = await import(document.querySelector('script[src*="/app.js"]').src);

// One stream, opened again by the browser when it breaks off, by us when the server refused it or the page was hidden.
// `on` has log, client, dropped (each gets the event's data) and state (connecting, live, reconnecting, fallback, ended).
export function follow(address, on) {
  let source = null, lastId = "", timer = 0, over = false;
  function open() {
    clearTimeout(timer);
    if (source || over || document.hidden) return;
    const url = new URL(address, location.origin);
    if (lastId) url.searchParams.set("after", lastId);
    on.state("connecting");
    const mine = (source = new EventSource(url));
    const hear = (name, then) =>
      mine.addEventListener(name, (event) => {
        if (event.lastEventId) lastId = event.lastEventId;
        then(JSON.parse(event.data));
      });
    mine.onopen = () => on.state("live");
    mine.onerror = () => {
      if (mine !== source) return;
      if (mine.readyState !== EventSource.CLOSED) return on.state("reconnecting");
      source = null;
      on.state("fallback");
      timer = setTimeout(open, AGAIN_MS * (0.5 + Math.random() / 2));
    };
    for (const name of ["log", "client", "dropped"]) hear(name, on[name]);
    // How far the stream has come where nothing was for us: a browser tells an id only with an event.
    hear("place", () => {});
    hear("end", () => {
      over = true;
      close();
      on.state("ended");
    });
  }
  function close() {
    clearTimeout(timer);
    source?.close();
    source = null;
  }
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", open);
  open();
}

// As pages/visible.py has it: nothing in a text is invisible or turns the line around.
const ODD = /([\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}])/u, PLAIN = "\n\t\u200c\u200d";

function visible(text) {
  return text.split(ODD).map((piece, number) => {
    if (!(number % 2) || PLAIN.includes(piece)) return piece;
    const mark = document.createElement("span");
    mark.className = "odd";
    const code = piece.codePointAt(0).toString(16);
    mark.textContent = code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
    return mark;
  });
}

const placeOfLine = (line) => `${line.timestamp}/${line.id}`;

function lineOf(root, line) {
  const row = root.querySelector(`template[data-row="${line.level}"]`).content.firstElementChild.cloneNode(true);
  const put = (name, fill) => row.querySelectorAll(`[data-field="${name}"]`).forEach(fill);
  const own = `/clients/${encodeURIComponent(line.client_uuid)}`, record = `${own}/logs?id=${line.id}#log-${line.id}`;
  row.id = `log-${line.id}`;
  row.dataset.place = placeOfLine(line);
  put("timestamp", (each) => each.replaceChildren(timeElement(line.timestamp)));
  put("message", (each) => each.replaceChildren(...visible(line.cut ? `${line.message} …` : line.message)));
  put("code", (each) => (line.code ? each.replaceChildren(...visible(line.code)) : each.remove()));
  put("client", (each) => {
    each.replaceChildren(...visible(line.client_label));
    each.href = own;
  });
  put("link", (each) => (each.href = record));
  put("copy", (each) => {
    each.dataset.copy = record;
    each.hidden = false;
  });
  put("context", (each) => {
    const frame = each.closest("details") ?? each;
    frame.id = `context-${line.id}`;
    if (Object.keys(line.context).length) each.replaceChildren(...visible(JSON.stringify(line.context, null, 2)));
    else frame.remove();
  });
  return row;
}

// As queries.Cursor has it.
const cursorOf = (place) => btoa(place).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
const placeAt = (cursor) => atob(cursor.replaceAll("-", "+").replaceAll("_", "/"));

// Whether the one line (an element or a place) is newer than the other. Timestamps are all of one length.
function newer(one, other) {
  const [[when, number], [thatWhen, thatNumber]] = [one.split("/"), other.split("/")];
  return when === thatWhen ? Number(number) > Number(thatNumber) : when > thatWhen;
}

// Put the rows where they belong in a list that is in order.
function insert(list, rows, placeOf) {
  let next = list.firstElementChild;
  for (const row of rows.sort((one, other) => (newer(placeOf(one), placeOf(other)) ? -1 : 1))) {
    while (next && newer(placeOf(next), placeOf(row))) next = next.nextElementSibling;
    list.insertBefore(row, next);
  }
}

// Older lines begin behind the last one that is shown: there is no room for more. Where it is older than these, which is
// what came late, they begin where they did.
function goOnAfter(link, place) {
  const frame = link.closest("nav"), url = new URL(link.href), before = url.searchParams.get("before");
  if (!frame?.hidden && before && !newer(place, placeAt(before))) return;
  url.searchParams.set("before", cursorOf(place));
  link.href = url.href;
  if (frame) frame.hidden = false;
}

// The lines of one [data-stream].
function view(root) {
  const words = root.dataset, told = root.querySelector("[data-live-state]"), button = root.querySelector("[data-live-pause]");
  const byTime = root.querySelector('[data-live-rows="time"]') !== null;
  let state = "connecting", paused = false, waiting = [], lost = 0, about = false, drawn = 0, cut = false;

  function tell() {
    const parts = [paused ? words.paused.replace("{n}", waiting.length) : words[state] ?? ""];
    if (lost) parts.push((about ? words.droppedAbout : words.dropped).replace("{n}", lost));
    const text = parts.join(" ");
    if (told && told.textContent !== text) told.textContent = text;
    root.dataset.state = paused ? "paused" : state;
  }
  function draw() {
    drawn = 0;
    if (paused) return tell();
    const list = root.querySelector("[data-live-rows]");
    if (!list) return;
    const fresh = waiting.filter((line) => !document.getElementById(`log-${line.id}`));
    waiting = [];
    insert(list, fresh.map((line) => lineOf(root, line)), (row) => (byTime ? row.dataset.place : row.id.replace("log-", "/")));
    for (; list.children.length > MAX_ROWS; cut = true) list.lastElementChild.remove();
    const older = root.querySelector("a[data-live-older]");
    if (cut && older) goOnAfter(older, list.lastElementChild.dataset.place);
    cut = false;
    root.querySelector("[data-live-empty]")?.toggleAttribute("hidden", list.children.length > 0);
    tell();
  }
  if (button) {
    const go = button.textContent;
    button.hidden = false;
    button.addEventListener("click", () => {
      paused = !paused;
      button.setAttribute("aria-pressed", String(paused));
      button.textContent = paused ? button.dataset.resume : go;
      if (!paused) lost = 0;
      draw();
    });
  }
  return {
    log(line) {
      waiting.push(line);
      if (waiting.length > MAX_ROWS) {
        const oldest = waiting.reduce((one, other) => (newer(placeOfLine(one), placeOfLine(other)) ? other : one));
        waiting.splice(byTime ? waiting.indexOf(oldest) : 0, 1);
        cut = true;
        lost += paused ? 1 : 0;
      }
      // Once a frame, however many come: the page stays quick.
      drawn ||= requestAnimationFrame(draw);
    },
    dropped(what) {
      lost += what.logs;
      about ||= what.about;
      tell();
    },
    state(name) {
      state = name;
      tell();
    },
  };
}

// What the server has drawn, drawn again: a moment after something changed, and at leisure. Many pages hear of a change
// at the same time: each waits a little longer than the next one. One fetch at a time, and then a pause of TIMES its
// length, so that pages that are always told of something do not take up the server.
function refresher() {
  const wanted = new Set();
  let state = "", busy = false, timer = 0, free = 0, stranger = -Infinity;
  // A stream that is there again has lines that an answer from before does not have.
  const isNeeded = (each) => each.dataset.refresh !== "fallback" || state !== "live";
  async function again() {
    timer = 0;
    const parts = [...document.querySelectorAll("[data-refresh]")];
    const chosen = parts.filter((each) => wanted.has(each.dataset.refresh) && isNeeded(each));
    wanted.clear();
    if (document.hidden || state === "ended" || !chosen.length) return;
    busy = true;
    const began = performance.now();
    // What fails is tried the next time, or after signing in again.
    await refresh(chosen, isNeeded).catch(() => {});
    busy = false;
    const now = performance.now(), pause = Math.max(SOON_MS, TIMES * (now - began));
    free = now + Math.min(LATEST_MS, pause) * (1 + Math.random() / 2);
    if (wanted.size) ask();
  }
  function ask(...kinds) {
    for (const kind of kinds) wanted.add(kind);
    if (busy) return;
    timer ||= setTimeout(again, Math.max(FIRST_MS * (1 + Math.random()), free - performance.now()));
  }
  // As fleet.State.PROBLEM has it, as far as an event tells.
  const fails = (client) =>
    !client.online || client.process_status === "crashed" || ["BLACK", "FROZEN"].includes(client.screen_health_status);
  function concerns(client) {
    if (document.getElementById(`c-${client.uuid}`)) return true;
    if (!fails(client) || performance.now() - stranger < STRANGER_MS) return false;
    stranger = performance.now();
    return true;
  }
  setInterval(() => ask("", "shown", "slow", state === "live" ? "" : "fallback"), REFRESH_MS);
  document.addEventListener("visibilitychange", () => document.hidden || ask("", "shown", "slow"));
  return {
    client: (client) => ask("", concerns(client) ? "shown" : ""),
    clients: () => ask("", "shown"),
    state: (name) => (state = name),
  };
}

const root = document.querySelector("[data-stream]");
const part = document.querySelector("[data-refresh]");
if (root || part) {
  const lines = root && view(root), page = refresher();
  const client = part?.dataset.client;
  follow(root?.dataset.stream ?? `/api/stream?logs=false${client ? `&uuid=${encodeURIComponent(client)}` : ""}`, {
    log: (line) => lines?.log(line),
    client: page.client,
    dropped(what) {
      lines?.dropped(what);
      if (what.clients) page.clients();
    },
    state(name) {
      lines?.state(name);
      page.state(name);
    },
  });
}
