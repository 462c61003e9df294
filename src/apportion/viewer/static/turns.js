// Episodes of several turns, turn by turn; states that were met more than once carry the same mark.

import { around } from "./colours.js";
import { el } from "./dom.js";
import { short, signed } from "./numbers.js";
import { nodes as textNodes, plain } from "./text.js";

/** The episode view of a group. */
export function turns(group, given) {
  const table = group.turns, keys = table.columns.state_key ?? [];
  const marks = shared(keys);
  const credits = table.starts.map((start, t) => (given && table.ends[t] > start ? given.advantages.slice(start, table.ends[t]).reduce((a, b) => a + b, 0) / (table.ends[t] - start) : null));
  const scale = around(Math.max(0, ...credits.filter((c) => c !== null).map(Math.abs)));
  const episodes = [...new Set(table.episode)];
  return el("section", { class: "card turns", "aria-label": "episodes" }, el("h2", {}, "Episodes, turn by turn"),
    el("p", { class: "note" }, keys.length ? "States met more than once carry the same letter: decisions at one are what step methods compare." : "These rollouts bring no state keys."),
    el("div", { class: "scroll" }, el("div", { class: "episodes" }, episodes.map((e) => el("div", { class: "episode" }, el("h3", {}, `Response ${e + 1}`),
      table.starts.map((_, t) => t).filter((t) => table.episode[t] === e).map((t) => turn(group, table, t, marks, keys, credits, scale)))))));
}

function shared(keys) {
  const counts = new Map();
  for (const key of keys) if (key !== null) counts.set(key, (counts.get(key) ?? 0) + 1);
  const repeated = [...counts].filter(([, count]) => count > 1).map(([key]) => key);
  return new Map(repeated.map((key, i) => [key, { letter: letters(i), colour: i % 8 }]));
}

function letters(i) {
  return i < 26 ? String.fromCharCode(65 + i) : letters(Math.floor(i / 26) - 1) + String.fromCharCode(65 + (i % 26));
}

function turn(group, table, t, marks, keys, credits, scale) {
  const key = keys[t] ?? null, mark = key === null ? null : marks.get(key), start = table.starts[t], end = table.ends[t];
  const heard = table.level === "response" ? group.prompts[group.token_offsets.indexOf(start)] : null;
  const rewards = Object.entries(table.columns).filter(([name]) => name.startsWith("reward/"));
  const facts = Object.entries(table.columns).filter(([name, v]) => !name.startsWith("scored/") && !name.startsWith("reward/") && !["state_key", "temperature", "answer", "task_source"].includes(name) && v[t] !== null && v[t] !== undefined);
  return el("div", { class: "turn" },
    el("div", { class: "turn-head" }, el("span", { class: "turn-number" }, `turn ${table.index[t] + 1}`), mark ? el("span", { class: `state state${mark.colour}`, title: plain(String(key)).slice(0, 300) }, mark.letter) : key === null ? null : el("span", { class: "state lone", title: plain(String(key)).slice(0, 300) }, "\u00b7"),
      rewards.map(([name, v]) => (v[t] === null ? null : el("span", { class: "turn-reward" }, `${plain(name.slice(7))} ${short(v[t])}`)))),
    heard ? el("p", { class: "heard" }, textNodes(heard.slice(0, 300))) : null,
    el("p", { class: `said ${credits[t] === null ? "none" : scale.class(credits[t])}` }, textNodes(group.texts.slice(start, Math.min(end, start + 200)).join(""))),
    credits[t] === null ? null : el("small", { class: "note" }, `mean credit ${signed(credits[t], 3)}`),
    facts.length ? el("details", {}, el("summary", {}, "more"), el("dl", {}, facts.map(([name, v]) => el("div", {}, el("dt", {}, plain(name)), el("dd", {}, plain(String(v[t])).slice(0, 200)))))) : null);
}
