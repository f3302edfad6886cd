// What every page gains from JavaScript: times in the viewer's zone, copy buttons, questions before what cannot be undone,
// the search key. Nothing here is needed to read or to use a page.

const spoken = document.documentElement.lang || "en";
// The page's language, as it is written where the viewer lives: 24 hours or 12.
const language = navigator.languages?.find((each) => each.split("-")[0] === spoken) ?? spoken;
const full = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" });
const minute = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(language, { day: "numeric", month: "short" });
const relative = new Intl.RelativeTimeFormat(language, { numeric: "always", style: "long" });
const STEPS = [[60, "second", 1], [3600, "minute", 60], [86400, "hour", 3600], [Infinity, "day", 86400]];

function since(seconds) {
  const [, unit, length] = STEPS.find(([limit]) => Math.abs(seconds) < limit);
  return relative.format(-Math.floor(seconds / length), unit);
}

// Put all <time> below `root` into the viewer's zone; UTC stays in the title, which the server wrote.
export function localTimes(root = document) {
  const now = Date.now();
  for (const tick of root.querySelectorAll("text[data-tick]")) {
    tick.textContent = (tick.dataset.as === "day" ? day : clock).format(new Date(tick.dataset.tick));
  }
  for (const element of root.querySelectorAll("[data-only-utc]")) element.hidden = true;
  for (const element of root.querySelectorAll("time[datetime]")) {
    const when = new Date(element.dateTime);
    if (Number.isNaN(when.getTime())) continue;
    if (element.classList.contains("ago")) {
      element.dataset.utc ??= element.title;
      element.title = `${full.format(when)} · ${element.dataset.utc}`;
      element.textContent = since((now - when) / 1000);
    } else if (!element.dataset.local) {
      element.dataset.local = "1";
      element.title ||= utc(element.dateTime);
      element.textContent = (element.classList.contains("minute") ? minute : full).format(when);
    }
  }
}

function utc(iso) {
  return iso.replace("T", " ").replace(/(\.\d+)?Z$/, " UTC");
}

// Of a <time> that a script makes itself.
export function timeElement(iso) {
  const element = document.createElement("time");
  element.dateTime = iso;
  element.title = utc(iso);
  element.textContent = full.format(new Date(iso));
  element.dataset.local = "1";
  return element;
}

const LONGEST_FETCH_MS = 60_000;

// Fetch this page again, once, and put into the place of each of these elements the one with the same id, where it is
// still `wanted` when the answer is there.
export async function refresh(elements, wanted = () => true) {
  if (!elements.length) return;
  const answer = await fetch(location.href, {
    headers: { "X-Refresh": "1" },
    credentials: "same-origin",
    signal: AbortSignal.timeout?.(LONGEST_FETCH_MS),
  });
  if (!answer.ok || answer.redirected) throw new Error(`${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const element of elements) if (wanted(element)) replace(element, page.getElementById(element.id));
}

// Focus and what is open stay.
function replace(element, fresh) {
  if (!fresh) return;
  const open = [...element.querySelectorAll("details[open][id]")].map((each) => each.id);
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  if (focused && isTyping(focused)) return;
  const again = focused && placeOf(element, focused);
  element.replaceWith(fresh);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  again?.(fresh)?.focus({ preventScroll: true });
  localTimes(fresh);
}

const TYPED = "input, textarea, select";

// In a field, or on the way from it to the form's button.
function isTyping(focused) {
  if (focused.matches(TYPED)) return true;
  const fields = focused.closest("form")?.querySelectorAll("input, textarea") ?? [];
  return [...fields].some((each) => each.value !== each.defaultValue || each.checked !== each.defaultChecked);
}

// How to find this element again when what it is in was drawn anew: by its id; by where it leads to; or by what it is
// called and its number among those of its kind.
function placeOf(root, focused) {
  if (focused.id) return () => document.getElementById(focused.id);
  const kind = (within) => [...within.querySelectorAll(focused.localName)];
  const nth = (same) => [kind(root).filter(same).indexOf(focused), same];
  const find = ([number, same]) => (fresh) => kind(fresh).filter(same)[number];
  const [address, name] = [focused.getAttribute("href"), focused.getAttribute("aria-label")];
  const byAddress = address && find(nth((each) => each.getAttribute("href") === address));
  const otherwise = find(nth((each) => each.getAttribute("aria-label") === name));
  return (fresh) => byAddress?.(fresh) ?? otherwise(fresh);
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  event.preventDefault();
  const text = button.dataset.copy.startsWith("/") ? location.origin + button.dataset.copy : button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS browsers give no clipboard: selected, it can be copied by hand.
    window.prompt("", text);
    return;
  }
  const before = button.textContent;
  button.textContent = document.body.dataset.copied;
  setTimeout(() => (button.textContent = before), 1500);
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// A filter that is chosen from a list needs no button press.
document.addEventListener("change", (event) => {
  if (event.target.matches("form[data-auto] select, form[data-auto] input[type=checkbox]")) event.target.form.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const search = document.querySelector("input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
    }
  }
  if (event.key === "Escape") for (const menu of document.querySelectorAll("details.menu[open]")) menu.removeAttribute("open");
});

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.removeAttribute("open");
});

// Times in a form are first offered in the zone of whoever fills it in.
for (const field of document.querySelectorAll("input[data-own-zone]")) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if ([...field.list.options].some((option) => option.value === zone)) field.value = zone;
}
for (const element of document.querySelectorAll("[data-copy][hidden]")) element.hidden = false;
localTimes();
setInterval(() => localTimes(), 10_000);
