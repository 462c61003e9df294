// The page: its frame, what is drawn in it, and the changes of address that choose it.

import * as address from "./address.js";
import * as compare from "./compare.js";
import { ask, offline, open } from "./data.js";
import { el, empty, put } from "./dom.js";
import * as group from "./group.js";
import * as groups from "./groups.js";
import { setColumns } from "./listing.js";
import * as run from "./run.js";
import { plain } from "./text.js";

const PAGES = { run, groups, group, compare };
const EVERY = 2500, WHILE_READING = 300;

let runs = [], turn = 0, update = null;

function theme() {
  const kept = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  return kept ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}

function setTheme(name, keep) {
  document.documentElement.dataset.theme = name;
  if (keep) try { localStorage.setItem("theme", name); } catch { /* a page opened from a file may keep nothing */ }
}

function frame() {
  const tabs = el("nav", { class: "tabs", "aria-label": "pages" });
  const chooser = el("div", { class: "chooser" });
  const main = el("main", {});
  document.body.replaceChildren(el("header", { class: "top" },
    el("a", { class: "brand", href: "#/run" }, el("i", { class: "logo" }), "apportion"), chooser, tabs, el("span", { class: "space" }), el("span", { class: "live", id: "live" }),
    el("button", { type: "button", class: "quiet theme", title: "dark or light", "aria-label": "dark or light", onclick: () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark", true) }, "\u25d0")),
  main, el("div", { id: "tip", role: "tooltip", hidden: true }));
  return { tabs, chooser, main };
}

function head({ tabs, chooser }, at) {
  const page = PAGES[at.page] ? at.page : "run", shown = page === "group" ? "groups" : page;
  put(tabs, [["run", "Run"], ["groups", "Groups"], ["compare", "Compare"]].map(([name, title]) => el("a", { href: address.write({ page: name, run: at.run }), class: name === shown ? "on" : "", "aria-current": name === shown ? "page" : null }, title)));
  put(chooser, runs.length > 1 ? el("select", { "aria-label": "run", onchange: (event) => { location.hash = address.write({ page: page === "group" ? "groups" : page, run: event.target.value }); } }, runs.map((r, n) => el("option", { value: n, selected: n === Number(at.run || 0) }, plain(r.name)))) : el("span", { class: "run-name" }, plain(runs[0]?.name ?? "")));
}

async function show(parts) {
  const mine = ++turn, at = address.read(), alive = () => mine === turn;
  document.getElementById("tip").hidden = true;
  head(parts, at);
  document.title = `${at.page} \u00b7 apportion`;
  const place = el("div", { class: `page page-${at.page}` });
  put(parts.main, place);
  const waiting = setTimeout(() => alive() && !place.firstChild && put(place, el("p", { class: "note waiting", role: "status" }, "reading\u2026")), 250);
  update = null;
  try {
    if (Number(at.run || 0) >= runs.length) throw new Error("This address names a run that is not open.");
    const page = PAGES[at.page];
    if (!page) throw new Error("There is no such page.");
    update = (await page.draw(place, at, runs, alive)) ?? null;
  } catch (error) {
    if (alive()) put(place, empty("Nothing to show", plain(String(error.message))));
  } finally {
    clearTimeout(waiting);
  }
  if (alive()) document.body.dataset.ready = location.hash;
}

async function follow(parts) {
  if (document.hidden) return;
  const before = JSON.stringify(runs.map((r) => [r.listed, r.parts, r.edition]));
  const answer = await ask("runs").catch(() => null);
  const live = document.getElementById("live");
  live.textContent = answer ? "" : "the viewer has stopped";
  if (!answer) return;
  runs = answer.runs;
  const changed = before !== JSON.stringify(runs.map((r) => [r.listed, r.parts, r.edition]));
  if (update) await update();
  else if (changed && address.read().page === "run") await show(parts);
}

async function start() {
  setTheme(theme(), false);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(theme(), false));
  const inside = open();
  const parts = frame();
  try {
    const answer = await ask("runs");
    runs = answer.runs;
    setColumns(answer.columns);
    if (inside?.note) document.getElementById("live").textContent = inside.note;
  } catch (error) {
    put(parts.main, empty("Nothing to show", plain(String(error.message))));
    return;
  }
  addEventListener("hashchange", () => show(parts));
  await show(parts);
  const again = async () => {
    await follow(parts).catch(() => null);
    setTimeout(again, runs.some((r) => r.listed < r.parts) ? WHILE_READING : EVERY);
  };
  if (!offline()) setTimeout(again, WHILE_READING);
}

start();
