// The list of groups: filtered, sorted, and drawn only where it can be seen, however long it is.

import * as address from "./address.js";
import { askAgreement, pairOf } from "./data.js";
import { el, empty, put } from "./dom.js";
import { chosen, disagreementOf, keepDisagreement, known, refresh } from "./listing.js";
import { many, rewardText, short } from "./numbers.js";
import { kindOf, rangeOf, shareOf } from "./rewards.js";
import { complaints } from "./run.js";
import { plain } from "./text.js";

const ROW = 40;
const HEADS = [["part", "step"], ["group", "group"], ["prompt", "prompt"], ["rewards", "rewards"], ["mean", "mean"], ["length", "length"], ["entropy", "entropy"], ["credit", "largest credit"], ["disagreement", "disagreement"]];
const HEALTH = [["", "any outcome"], ["mixed", "mixed"], ["dead", "dead (all alike)"], ["right", "all right"], ["wrong", "all wrong"], ["unscored", "unscored"]];

/** Draws the page. */
export async function draw(place, at, runs, alive) {
  const run = Number(at.run || 0);
  await refresh(run);
  if (!alive()) return;
  const listing = known(run), is_run = runs[run].is_run;
  const count = el("p", { class: "note", id: "count", role: "status" });
  const body = el("div", { class: "rows", role: "rowgroup", tabindex: "0" });
  const inner = el("div", { class: "rows-inner" }), wrong = el("div", {});
  body.append(inner);
  let rows = [];

  const show = () => {
    const now = address.read();
    rows = chosen(listing, now);
    put(wrong, complaints(listing));
    put(count, `${rows.length.toLocaleString("en")} of ${many(listing.rows.length, "group")}`, listing.listed < listing.parts ? `, reading step ${listing.listed} of ${listing.parts}` : "");
    inner.style.height = `${rows.length * ROW}px`;
    if (!rows.length) put(inner, empty(listing.rows.length ? "No group passes the filters" : listing.listed < listing.parts ? "Reading\u2026" : "No group is stored yet", listing.rows.length ? "Clear one of them." : "Groups appear here as steps are stored."));
    else window();
  };
  const window = () => {
    if (!rows.length) return;
    const first = Math.max(0, Math.floor(body.scrollTop / ROW) - 8), last = Math.min(rows.length, first + Math.ceil(body.clientHeight / ROW) + 16);
    put(inner, rows.slice(first, last).map((row, i) => line(run, listing, row, first + i, is_run)));
  };
  const set = (some) => {
    address.note(some);
    body.scrollTop = 0;
    show();
    heads();
  };
  const head = el("div", { class: "row head", role: "row" });
  const heads = () => {
    const now = address.read();
    put(head, HEADS.map(([name, title]) => {
      if (name === "part" && !is_run) return el("span", { class: "c-part" });
      const on = now.sort === name;
      return el("button", { class: `c-${name} ${on ? "on" : ""}`, type: "button", "aria-label": `sort by ${title}`,
        onclick: () => sortBy(name, on ? !now.down : name !== "part" && name !== "group" && name !== "prompt") },
      title, on ? (now.down ? " \u2193" : " \u2191") : "");
    }));
  };
  const sortBy = async (name, down) => {
    if (name === "rewards") name = "mean";
    set({ sort: name, down: down ? 1 : "" });
    if (name !== "disagreement" || listing.disagreement.size) return;
    try {
      const specs = await pairOf(run);
      if (!specs) throw new Error("Fewer than two methods can credit these rollouts.");
      const result = await askAgreement(run, specs, (state) => put(count, `comparing ${specs.join(" and ")}: ${state.done} of ${state.total} steps`), () => !alive());
      if (!alive() || !result) return;
      keepDisagreement(run, result.by_group);
      show();
    } catch (error) {
      put(count, error.message);
    }
  };
  const select = (name, label, options) => el("label", {}, label, el("select", { name, onchange: (event) => set({ [name]: event.target.value }) },
    options.map(([value, text]) => el("option", { value, selected: (at[name] || "") === value }, plain(text)))));
  const input = (name, label, type, extra = {}) => el("label", {}, label, el("input", { name, type, value: at[name] || "", ...extra, oninput: (event) => set({ [name]: event.target.value }) }));
  const tasks = [...new Set(listing.rows.map((row) => row.task).filter(Boolean))].sort();
  put(place, el("header", { class: "page-head" }, el("h1", {}, "Groups"), el("p", { class: "lead" }, "A group is what responses are compared with one another in: mostly the answers to one prompt.")),
    wrong,
    el("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() },
      input("text", "search", "search", { placeholder: "words of the prompt" }),
      select("health", "outcome", HEALTH),
      tasks.length > 1 ? select("task", "task", [["", "any task"], ...tasks.map((t) => [t, t])]) : null,
      is_run ? [input("from", "from step", "number", { min: "0" }), input("to", "to step", "number", { min: "0" })] : null,
      input("low", "mean reward from", "number", { step: "any" }), input("high", "to", "number", { step: "any" })),
    count, el("div", { class: "table card", role: "table", "aria-label": "groups" }, head, body));
  heads();
  body.addEventListener("scroll", window, { passive: true });
  show();
  if (at.sort === "disagreement") sortBy("disagreement", Boolean(at.down));
  return async () => {
    if (await refresh(run)) show();
  };
}

function line(run, listing, row, place, is_run) {
  const node = el("a", { class: `row ${place % 2 ? "odd" : ""}`, role: "row", href: address.write({ page: "group", run: run || "", part: row.part || "", group: row.group }) },
    el("span", { class: "c-part" }, is_run ? row.part : ""),
    el("span", { class: "c-group" }, plain(String(row.name ?? row.group))),
    el("span", { class: "c-prompt" }, plain(row.prompt || "(no prompt)"), row.task ? el("small", {}, plain(row.task)) : null),
    el("span", { class: "c-rewards" }, dots(row, rangeOf(listing))),
    el("span", { class: "c-mean" }, row.mean === null ? "\u2013" : rewardText(row.mean)),
    el("span", { class: "c-length" }, short(row.length)),
    el("span", { class: "c-entropy" }, short(row.entropy)),
    el("span", { class: "c-credit" }, row.credit === null ? "\u2013" : row.credit.toFixed(2)),
    el("span", { class: "c-disagreement" }, disagreementOf(listing, row) === null ? "\u2013" : disagreementOf(listing, row).toFixed(2)));
  node.style.transform = `translateY(${place * ROW}px)`;
  return node;
}

function dots(row, range) {
  const dot = (reward) => {
    const kind = reward === null ? "unknown" : kindOf(reward, range), drawn = el("i", { class: `dot-${kind}` });
    if (kind === "number") drawn.style.setProperty("--share", `${100 * shareOf(reward, range)}%`);
    return drawn;
  };
  return [row.rewards.slice(0, 32).map(dot), row.episodes > 32 ? `+${row.episodes - 32}` : null];
}
