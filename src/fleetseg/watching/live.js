// Keeps the page up to date: fetches it when the run reports a change, and swaps the parts that differ.
// Scroll position, open folds, chosen inputs and the focus are preserved.
const bar = document.getElementById("live"), word = bar.querySelector("b"), told = bar.querySelector("span");
const main = document.getElementById("top");
const keyOf = (part) => part.id || part.tagName + "." + part.className;
const partsOf = (whole) => [...whole.children].filter((part) => part !== whole.querySelector("#live") && part.id !== "live-vehicles");
const controls = "a[href], button, input, select, textarea, summary, [tabindex]";
const scripted = new Set(["curves", "pictures"]); // the page's own script keeps references into these
let known = null, knownContents = null, version = bar.dataset.version, busy = false, wanted = null;

const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const show = (is, heading, sentence) => { bar.dataset.is = is; setText(word, heading); setText(told, sentence); };

// The user's interactions with a part, by position: its markup does not record them.
const habits = (part) => ({
  open: [...part.querySelectorAll("details")].map((fold) => fold.open),
  set: [...part.querySelectorAll("input, select")].map((e) =>
    ({ value: e.value, checked: e.checked, newest: e.type === "range" && e.value === e.max })),
  left: [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft),
  focus: [...part.querySelectorAll(controls)].indexOf(document.activeElement),
});
const restore = (part, before) => {
  part.querySelectorAll("details").forEach((fold, k) => { if (k in before.open) fold.open = before.open[k]; });
  part.querySelectorAll("input, select").forEach((e, k) => {
    const was = before.set[k];
    if (!was || was.newest) return; // a slider at the newest round follows the newest round
    if (e.type === "checkbox" || e.type === "radio") { e.checked = was.checked; return; }
    if (e.value !== was.value) { e.value = was.value; e.dispatchEvent(new Event("input", { bubbles: true })); }
  });
  part.querySelectorAll(".scroll").forEach((box, k) => { if (before.left[k]) box.scrollLeft = before.left[k]; });
  if (before.focus >= 0) part.querySelectorAll(controls)[before.focus]?.focus({ preventScroll: true });
};

// Keeps the first visible part in place when content above it changes its height.
const anchored = (change) => {
  const mark = partsOf(main).find((part) => part.getBoundingClientRect().bottom > bar.offsetHeight);
  const key = mark && keyOf(mark), top = mark?.getBoundingClientRect().top;
  change();
  const now = partsOf(main).find((part) => keyOf(part) === key);
  if (now && scrollY > 0) scrollBy({ top: now.getBoundingClientRect().top - top, behavior: "instant" });
};

const after = (node) => {
  do node = node.nextElementSibling; while (node && node.id === "live-vehicles");
  return node;
};

const swap = (page) => {
  const fresh = new Map(partsOf(page.getElementById("top")).map((part) => [keyOf(part), part]));
  const old = new Map(partsOf(main).map((part) => [keyOf(part), part]));
  const html = new Map([...fresh].map(([key, part]) => [key, part.outerHTML]));
  const contents = page.querySelector(".toc ol"), remembered = [];
  const same = page.getElementById("live").dataset.version === version; // then it is what the page shows
  const before = known ?? (same ? html : new Map());
  const differs = (key) => html.get(key) !== before.get(key);
  const listed = contents.outerHTML !== (knownContents ?? (same ? contents.outerHTML : ""));
  const again = listed || [...scripted].some(differs);
  for (const [key, part] of old) if (!fresh.has(key)) part.remove();
  let at = partsOf(main)[0];
  for (const [key, part] of fresh) {
    let node = old.get(key);
    if (!node || differs(key) || (again && scripted.has(key))) {
      const made = document.importNode(part, true);
      if (node) {
        remembered.push([made, habits(node)]);
        if (at === node) at = made;
        node.replaceWith(made);
      }
      node = made;
    }
    if (node === at) at = after(at); else main.insertBefore(node, at);
  }
  if (listed) document.querySelector(".toc ol").replaceWith(document.importNode(contents, true));
  known = html;
  knownContents = contents.outerHTML;
  document.title = page.title;
  document.getElementById("page-data").textContent = page.getElementById("page-data").textContent;
  if (again) pageScript();
  remembered.forEach(([part, was]) => restore(part, was));
};

const update = async () => {
  if (busy) return;
  busy = true;
  try {
    while (wanted !== version || known === null) {
      const next = wanted;
      const answer = await fetch("/", { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      anchored(() => swap(page));
      version = page.getElementById("live").dataset.version;
      if (version !== next) break; // the run has changed meanwhile; another event follows
    }
  } catch { /* the event source reports the failure and reconnects */ } finally { busy = false; }
};

const events = new EventSource("/events");
events.addEventListener("state", (event) => {
  const state = JSON.parse(event.data);
  wanted = state.version;
  show(state.word.toLowerCase(), state.word, state.sentence);
  update();
});
events.addEventListener("vehicles", (event) => {
  const page = new DOMParser().parseFromString(JSON.parse(event.data), "text/html");
  const made = document.importNode(page.getElementById("live-vehicles"), true);
  const node = document.getElementById("live-vehicles"), was = node && habits(node);
  anchored(() => { if (node) { node.replaceWith(made); restore(made, was); } else main.querySelector("header").after(made); });
});
events.addEventListener("error", () => {
  show("lost", "Not connected", "fleetseg watch has ended or cannot be reached; this page stays as it is and keeps trying to reconnect");
});
