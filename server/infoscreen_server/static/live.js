// Follows what the server commits. Nothing here is needed to read a page: it only saves pressing reload.
//
// An element with [data-refresh] and an id is fetched again when a client's state changes, and every 30 s; one with
// data-refresh="slow" only every 30 s, with "fallback" only as long as there is no stream. data-client="<uuid>" beside
// it: of this client only.
// An element with [data-stream] (the address) shows log lines; within it:
//   [data-live-state]   where the state is told, in the words of data-connecting, data-live, data-paused ({n} lines wait),
//                       data-reconnecting, data-fallback, data-ended, data-dropped and data-dropped-about ({n} lines)
//   [data-live-pause]   a button, hidden without this script; data-resume is its other word
//   [data-live-rows]    where the lines go, newest first, each with the id log-<number>
//   template[data-row=LEVEL]  one line, with [data-field]: timestamp, message, code, context, client and link (<a>), copy
//   [data-live-empty]   shown as long as there is no line
// templates/_live.html has all of it.

const REFRESH_MS = 30000, SOON_MS = 2000, AGAIN_MS = 30000, MAX_ROWS = 500;

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
      timer = setTimeout(open, AGAIN_MS);
    };
    for (const name of ["log", "client", "dropped"]) hear(name, on[name]);
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

function lineOf(root, line) {
  const row = root.querySelector(`template[data-row="${line.level}"]`).content.firstElementChild.cloneNode(true);
  const put = (name, fill) => row.querySelectorAll(`[data-field="${name}"]`).forEach(fill);
  const own = `/clients/${encodeURIComponent(line.client_uuid)}`, record = `${own}/logs?id=${line.id}#log-${line.id}`;
  row.id = `log-${line.id}`;
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
    if (Object.keys(line.context).length) each.replaceChildren(...visible(JSON.stringify(line.context, null, 2)));
    else (each.closest("details") ?? each).remove();
  });
  return row;
}

// The lines of one [data-stream].
function view(root) {
  const words = root.dataset, told = root.querySelector("[data-live-state]"), button = root.querySelector("[data-live-pause]");
  let state = "connecting", paused = false, waiting = [], lost = 0, about = false, drawn = 0;

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
    list.prepend(...fresh.reverse().map((line) => lineOf(root, line)));
    while (list.children.length > MAX_ROWS) list.lastElementChild.remove();
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
        waiting.shift();
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

// What the server has drawn, drawn again: a moment after something changed, and at leisure.
function refresher() {
  let state = "", at = 0, soon = 0;
  async function again(...kinds) {
    if (document.hidden || state === "ended") return;
    at = Date.now();
    const chosen = [...document.querySelectorAll("[data-refresh]")].filter((each) => kinds.includes(each.dataset.refresh));
    // What fails is tried the next time, or after signing in again.
    await refresh(chosen).catch(() => {});
  }
  function changed() {
    soon ||= setTimeout(() => {
      soon = 0;
      again("");
    }, Math.max(250, at + SOON_MS - Date.now()));
  }
  setInterval(() => again("", "slow", state === "live" ? "" : "fallback"), REFRESH_MS);
  document.addEventListener("visibilitychange", () => document.hidden || again("", "slow"));
  return { changed, state: (name) => (state = name) };
}

const root = document.querySelector("[data-stream]");
const part = document.querySelector("[data-refresh]");
if (root || part) {
  const lines = root && view(root), page = refresher();
  const client = part?.dataset.client;
  follow(root?.dataset.stream ?? `/api/stream?logs=false${client ? `&uuid=${encodeURIComponent(client)}` : ""}`, {
    log: (line) => lines?.log(line),
    client: page.changed,
    dropped(what) {
      lines?.dropped(what);
      if (what.clients) page.changed();
    },
    state(name) {
      lines?.state(name);
      page.state(name);
    },
  });
}
