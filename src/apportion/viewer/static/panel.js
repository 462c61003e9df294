// What is known about one token: its credit under every method shown, how it came about, and its statistics.

import { el } from "./dom.js";
import { many, rewardText, short, signed } from "./numbers.js";
import { offsetOf, rewardOf, textOf, tokensAt } from "./shape.js";
import { nodes as textNodes, plain } from "./text.js";

const WORDS = {
  "log_probs/behaviour": "log-prob when sampled",
  "log_probs/old": "log-prob before the update",
  "log_probs/after": "log-prob after the update",
  "log_probs/reference": "log-prob of the reference",
  "entropy/old": "entropy before the token",
  weight: "sampling weight",
};

/** The few lines that follow the pointer. */
export function tip(group, place, amount, episode) {
  const { node, depth } = place, at = tokensAt(group, node, depth, episode), value = amount.of(node, depth, episode);
  const said = amount.kind === "credit" ? signed(value) : short(value);
  return [
    el("span", { class: "tip-token" }, textNodes(group.texts[at[0].token].slice(0, 60))),
    el("span", { class: "tip-value", "data-value": value ?? "" }, said), el("span", { class: "tip-label" }, plain(amount.label)),
    el("span", { class: "tip-note" }, at.length > 1 ? `mean over the ${at.length} responses that share it` : `response ${at[0].episode + 1}`, `, token ${depth + 1}`),
    group.trained[at[0].token] ? null : el("span", { class: "tip-note" }, "not trained on"),
  ];
}

/** Everything about a token. */
export function panel(group, place, specs, labels, episode, close) {
  const { node, depth } = place, at = tokensAt(group, node, depth, episode), one = at[0];
  const before = textOf(group, one.episode, Math.max(0, depth - 12), depth), end = offsetOf(group, one.episode + 1) - offsetOf(group, one.episode), after = textOf(group, one.episode, depth + 1, Math.min(depth + 13, end));
  return el("aside", { class: "panel card", "aria-label": "token" },
    el("div", { class: "panel-head" }, el("h2", {}, "Token ", depth + 1), el("button", { type: "button", class: "quiet", "aria-label": "close", onclick: close }, "\u00d7")),
    el("p", { class: "context" }, textNodes(before.slice(-80)), el("mark", {}, textNodes(group.texts[one.token])), textNodes(after.slice(0, 80))),
    el("p", { class: "note" }, `id ${group.ids[one.token]}, `, at.length > 1 ? `shared by ${at.length} responses; statistics are of response ${one.episode + 1}` : `response ${one.episode + 1}`, group.trained[one.token] ? "" : ", not trained on"),
    el("h3", {}, "Credit"), specs.map((spec) => credit(group, place, spec, labels.get(spec) ?? spec, at)),
    alternatives(group, one),
    el("h3", {}, "Statistics"), statistics(group, one));
}

/** What else might have been drawn here, likeliest first, and the token that was. */
function alternatives(group, one) {
  const ids = group.alternatives?.ids[one.token];
  if (!ids) return null;
  const own = group.ids[one.token], log_probs = group.alternatives.log_probs[one.token];
  const rows = ids.map((id, i) => ({ id, text: group.alternatives.texts[id], chance: Math.exp(log_probs[i] ?? -Infinity) }));
  const drawn = group.columns.token?.["log_probs/behaviour"]?.[one.token];
  if (!ids.includes(own)) rows.push({ id: own, text: group.texts[one.token], chance: typeof drawn === "number" ? Math.exp(drawn) : null });
  return [el("h3", {}, "What else it might have been"), el("table", { class: "numbers alternatives" }, el("tbody", {}, rows.map(({ id, text, chance }) => el("tr", { class: id === own ? "drawn" : "" },
    el("th", {}, el("span", { class: "alternative" }, text === "" ? el("i", { class: "glyph" }, "\u2205") : textNodes(text.slice(0, 60))), id === own ? el("small", {}, " drawn") : null),
    el("td", {}, bar(chance), chance === null ? "\u2013" : `${(100 * chance).toFixed(chance < 0.001 ? 3 : 1)}%`)))))];
}

function bar(chance) {
  const filled = el("span", { class: "chance" });
  filled.style.width = `${Math.round(80 * (chance ?? 0))}px`;
  return filled;
}

function table(rows) {
  return rows.length ? el("table", { class: "numbers" }, el("tbody", {}, rows.map(([name, value, note]) => el("tr", {}, el("th", {}, plain(name)), el("td", {}, value, note ? el("small", {}, note) : null))))) : el("p", { class: "note" }, "none stored");
}

function credit(group, place, spec, label, at) {
  const given = group.credits[spec];
  if (!given || given.error) return el("p", { class: "note" }, plain(`${label}: ${given?.error ?? "not here"}`));
  const known = at.filter(({ episode }) => !given.unknown[episode]);
  const values = known.map(({ token }) => given.advantages[token]);
  const mean = values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
  const one = known[0] ?? at[0], details = given.details;
  const rows = [["advantage", signed(mean), at.length > 1 ? ` mean of ${at.length}` : ""]];
  if (new Set(values.map((v) => v.toFixed(6))).size > 1) rows.push(["from", signed(Math.min(...values)), ` to ${signed(Math.max(...values))}`]);
  rows.push(...background(group, one.episode));
  for (const [name, column] of Object.entries(details.token ?? {})) rows.push([name, value(column[one.token])]);
  for (const [name, column] of Object.entries(details.episode ?? {})) rows.push([`${name} (response)`, value(column[one.episode])]);
  for (const [level, columns] of Object.entries(details)) {
    const spans = group.spans[level];
    if (!spans) continue;
    const inside = spans.starts.findIndex((start, i) => one.token >= start && one.token < spans.ends[i]);
    if (inside >= 0) for (const [name, column] of Object.entries(columns)) rows.push([`${name} (${level})`, value(column[inside])]);
  }
  if (!given.trained[one.token]) rows.push(["trained", "no", " this method takes it out"]);
  if (!given.counted[one.token]) rows.push(["counted", "no", " not in the normaliser"]);
  return el("section", { class: "made", "data-credit": spec }, el("h4", {}, plain(label)), table(rows), stages(given, one));
}

/** How each stage made it: the advantage of this response's token after every stage, and rewards that stages shaped. */
function stages(given, one) {
  if (!given.stages?.length) return null;
  const rows = given.stages.map((stage, i) => [`${i + 1}. ${stage.stage.replaceAll("_", " ")}`,
    signed(stage.values === null ? given.advantages[one.token] : stage.values[one.token]), stage.kind === "shaper" ? ` reward ${plain(stage.component)}` : ` ${stage.kind}`]);
  return el("div", { class: "stages" }, el("h5", {}, rows.length > 1 ? "Stage by stage" : "Made in one stage"), table(rows));
}

/** What group-relative methods start from. */
function background(group, episode) {
  const reward = rewardOf(group, episode);
  if (group.component === null) return [];
  const known = group.rewards[group.component].map((r) => r.value).filter((v) => v !== null);
  if (reward.value === null || !known.length) return [["reward", "unknown"]];
  const mean = known.reduce((a, b) => a + b, 0) / known.length;
  const rows = [["reward", rewardText(reward.value)], ["group's mean reward", short(mean), ` of ${many(known.length, "response")}`]];
  if (known.length > 1) rows.push(["group's deviation", short(Math.sqrt(known.reduce((a, b) => a + (b - mean) ** 2, 0) / (known.length - 1)))]);
  return rows;
}

function value(given) {
  if (given === null || given === undefined) return "\u2013";
  if (Array.isArray(given)) return given.map(value).join(", ");
  if (typeof given === "number") return Number.isInteger(given) ? String(given).replace("-", "\u2212") : signed(given).replace("+", "");
  return plain(String(given)).slice(0, 200);
}

function statistics(group, one) {
  const rows = [];
  const columns = group.columns.token ?? {};
  const order = Object.keys(WORDS).filter((name) => name in columns).concat(Object.keys(columns).filter((name) => !(name in WORDS)));
  for (const name of order) {
    const given = columns[name][one.token];
    const chance = name.startsWith("log_probs/") && typeof given === "number" ? ` ${(100 * Math.exp(given)).toFixed(1)}%` : "";
    rows.push([WORDS[name] ?? name, value(given), chance]);
  }
  const then = columns["log_probs/old"]?.[one.token], now = columns["log_probs/after"]?.[one.token];
  if (typeof then === "number" && typeof now === "number") rows.push(["moved by the update", signed(now - then)]);
  for (const [kind, spans] of Object.entries(group.spans)) {
    const inside = spans.starts.findIndex((start, i) => one.token >= start && one.token < spans.ends[i]);
    if (inside < 0) continue;
    rows.push([kind, `${inside + 1}`]);
    for (const [name, column] of Object.entries(spans.columns)) rows.push([`${name} (${kind})`, value(column[inside])]);
  }
  return table(rows);
}

