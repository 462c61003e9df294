// The page of a group: its prompt, its responses as the tree they form, and who earned what.

import * as address from "./address.js";
import { legend } from "./colours.js";
import { ask, askGroup, offline } from "./data.js";
import { el, empty, put } from "./dom.js";
import { known, refresh } from "./listing.js";
import { many, rewardText, short, signed } from "./numbers.js";
import { panel, tip } from "./panel.js";
import { rangeOf } from "./rewards.js";
import { columnOf, creditOf, extreme, offsetOf, placeOf, rewardsOf, textOf, tokensAt } from "./shape.js";
import { nodes as textNodes, plain } from "./text.js";
import { drawTree, suits } from "./tree.js";
import { turns } from "./turns.js";

/** Draws the page. */
export async function draw(place, at, runs, alive) {
  const run = Number(at.run || 0), part = Number(at.part || 0);
  const offered = await ask("methods", { run });
  const spec = at.credit[0] ?? offered.defaults[0];
  if (!spec) throw new Error("These rollouts bring no credit, and no reward from which a method could make it.");
  const group = await askGroup(run, part, Number(at.group), [spec]);
  refresh(run).then(() => alive() && put(neighbours, around(run, group)));
  if (!alive()) return;
  const labels = new Map(offered.methods.map((m) => [m.credit, m.label]));
  const neighbours = el("span", { class: "neighbours" }, around(run, group));
  const view = el("div", { class: "view" }), tool = el("div", { class: "toolbar" }), tips = document.getElementById("tip");
  const given = group.credits[spec], rewards = rangeOf(runs[run], rewardsOf(group));

  const state = () => {
    const now = address.read();
    const episode = now.response === undefined ? null : Number(now.response);
    const pinned = (now.token ?? "").split(".").map(Number);
    return { by: now.by || "credit", layout: now.layout || suits(group), numbers: (now.numbers ?? "1") === "1", episode: episode !== null && episode < group.response_offsets.length - 1 ? episode : null,
      pin: pinned.length === 2 ? { node: placeOf(group, pinned[0], pinned[1]), depth: pinned[1] } : null };
  };
  const set = (some) => {
    address.note(some);
    show();
  };
  const show = () => {
    const now = state(), amount = chosenAmount(group, spec, labels, now.by);
    put(tool, controls(group, offered, spec, now, set, run));
    if (given.error || !amount) {
      put(view, empty("No credit under this method", plain(given.error ?? "choose something else to colour by")));
      return;
    }
    const credit = amount.kind === "credit", most = credit ? extreme(group, amount, 1, now.episode) : null, least = credit ? extreme(group, amount, -1, now.episode) : null;
    const marks = [[most, "most"], [least, "least"]].filter(([m]) => m && m.ties <= 3).map(([m, kind]) => ({ ...m, kind }));
    if (now.pin?.node && !marks.some((m) => m.node === now.pin.node && m.depth === now.pin.depth)) marks.push({ ...now.pin, kind: "pin" });
    const tree = drawTree(group, {
      ...now, amount, scale: amount.scale, marks, rewards,
      onhover: (found, event) => hover(tips, found, event, () => tip(group, found, amount, now.episode)),
      onpick: ({ node, depth }) => set({ token: `${now.episode !== null && node.episodes.includes(now.episode) ? now.episode : node.episodes[0]}.${depth}` }),
      onepisode: (episode) => set({ response: episode }),
    });
    put(view, credit ? callouts(group, most, least, now.episode) : null,
      el("div", { class: `stage ${now.pin?.node ? "with-panel" : ""}` },
        el("div", { class: "card tree-card" }, el("div", { class: "tree-head" }, legend(amount.scale, amount.label), key(group, now.episode, now.layout)), el("div", { class: "scroll" }, tree)),
        now.pin?.node ? panel(group, now.pin, [spec], labels, now.episode, () => set({ token: "" })) : null));
  };
  put(place, el("header", { class: "page-head" },
    el("p", { class: "crumbs" }, el("a", { href: address.write({ page: "groups", run: at.run }) }, plain(runs[run].name)), runs[run].is_run ? ` / step ${part}` : "", neighbours),
    el("h1", {}, "Group ", plain(String(group.name ?? group.group)))),
  el("section", { class: "card prompt" }, el("h2", {}, "Prompt"), el("div", { class: "prose" }, group.prompt ? textNodes(group.prompt, true) : el("i", {}, "none")), answerOf(group)),
  tool, view, responses(group, spec, set), group.turns ? turns(group, given.error ? null : given) : null, pairs(group), spans(group, given));
  show();
}

/** Shows or hides what follows the pointer. */
export function hover(tips, found, event, content) {
  if (!found) {
    tips.hidden = true;
    return;
  }
  put(tips, content());
  tips.hidden = false;
  const box = found.token.getBoundingClientRect(), own = tips.getBoundingClientRect();
  tips.style.left = `${Math.max(8, Math.min(innerWidth - own.width - 8, box.left + box.width / 2 - own.width / 2))}px`;
  tips.style.top = `${box.top - own.height - 8 > 0 ? box.top - own.height - 8 : box.bottom + 8}px`;
}

function around(run, group) {
  const rows = known(run).rows, i = rows.findIndex((row) => row.part === group.part && row.group === group.group);
  const to = (row, text) => (row ? el("a", { href: address.write({ page: "group", run: run || "", part: row.part || "", group: row.group, credit: address.read().credit }) }, text) : null);
  return i < 0 ? [] : [" ", to(rows[i - 1], "\u2190 previous"), " ", to(rows[i + 1], "next \u2192")];
}

function answerOf(group) {
  const answer = group.columns.response?.answer?.[0], task = group.columns.response?.task_source?.[0];
  return el("p", { class: "note" }, answer ? ["expected answer ", el("b", {}, textNodes(String(answer)))] : null, answer && task ? ", " : "", task ? ["from ", plain(task)] : null,
    group.has_text ? null : " Tokens are shown by their ids: name a tokenizer with --tokenizer.");
}

/** What credit is called under a method. */
export function creditLabel(spec, labels) {
  return spec === "stored" ? `credit ${labels.get(spec) ?? spec}` : `credit under ${labels.get(spec) ?? spec}`;
}

function chosenAmount(group, spec, labels, by) {
  const label = creditLabel(spec, labels);
  if (by === "credit") return creditOf(group, spec, label);
  const [kind, ...rest] = by.split(":"), name = rest.join(":");
  const values = kind === "detail" ? group.credits[spec].details?.token?.[name] : group.columns.token?.[name];
  return values ? columnOf(group, values.map((v) => (typeof v === "boolean" ? Number(v) : v)), name) : null;
}

function controls(group, offered, spec, now, set, run) {
  const numeric = (columns) => Object.entries(columns ?? {}).filter(([, values]) => values.every((v) => v === null || typeof v === "number" || typeof v === "boolean")).map(([name]) => name);
  const quantities = [["credit", "credit"], ...numeric(group.credits[spec].details?.token).map((n) => [`detail:${n}`, n]), ...numeric(group.columns.token).map((n) => [`column:${n}`, n])];
  const there = offered.methods.filter((m) => !m.missing.length && (!offline() || offered.held.includes(m.credit))), lacking = offline() ? [] : offered.methods.filter((m) => m.missing.length);
  const method = el("select", { name: "credit", class: "method", "aria-label": "credit method", onchange: (event) => { location.hash = address.changed({ credit: [event.target.value], by: "" }); } },
    there.map((m) => el("option", { value: m.credit, selected: m.credit === spec }, plain(m.label))),
    lacking.length ? el("option", { disabled: true }, "\u2014 lacking columns \u2014") : null,
    lacking.map((m) => el("option", { value: m.credit, disabled: true }, plain(`${m.label}: needs ${m.missing.join(", ")}`))));
  const other = there.map((m) => m.credit).filter((c) => c !== spec), same = (a, b) => a === "stored" && offered.methods.some((m) => m.credit === a && m.label === `as stored (${b})`), second = ["tempo", "grpo", "stored", "rloo", ...other].find((c) => other.includes(c) && !same(spec, c) && !same(c, spec));
  const claim = offered.methods.find((m) => m.credit === spec)?.bias;
  return [
    el("label", {}, "method", method),
    el("label", {}, "colour by", el("select", { name: "by", onchange: (event) => set({ by: event.target.value === "credit" ? "" : event.target.value }) }, quantities.map(([value, text]) => el("option", { value, selected: now.by === value }, plain(text))))),
    el("div", { class: "segments", role: "group", "aria-label": "layout" }, ["fan", "outline"].map((layout) => el("button", { type: "button", class: now.layout === layout ? "on" : "", "aria-pressed": String(now.layout === layout), onclick: () => set({ layout }) }, layout))),
    el("button", { type: "button", class: `toggle ${now.numbers ? "on" : ""}`, "aria-pressed": String(now.numbers), onclick: () => set({ numbers: now.numbers ? "0" : "1" }) }, "numbers"),
    now.episode === null ? null : el("button", { type: "button", class: "toggle on", onclick: () => set({ response: "" }) }, `only response ${now.episode + 1} \u00d7`),
    second ? el("a", { class: "button quiet", href: address.write({ page: "compare", run: run || "", part: group.part || "", group: group.group, credit: [spec, second] }) }, "Compare") : null,
    claim ? el("span", { class: "note claim" }, plain(claim)) : null,
  ];
}

/** What the drawing of a tree means; episode: the response whose own credit is shown, or null. */
export function key(group, episode, layout) {
  return el("p", { class: "note key" }, episode === null ? "A shared token shows the mean over the responses through it. " : "", group.columns.response?.fork ? "Dashed: a branch the sampler forced. " : "", el("span", { class: "together" }, el("span", { class: "gauge demo" }, el("span", {})), " value: mean reward through here;"), " \u00d7 how many pass. ", layout === "fan" ? el("span", { class: "together" }, el("span", { class: "way demo" }), " leads to what earned most.") : null);
}

/** The tokens that earned and lost most, in words. */
export function callouts(group, most, least, episode) {
  return el("div", { class: "callouts" }, callout(group, most, "most", "\u25b2 Earned most", episode), callout(group, least, "least", "\u25bc Lost most", episode));
}

const NOTHING = { most: "no token earns anything", least: "no token loses anything", apart: "no token is credited differently" };

/** One of them; kind apart: where two methods differ most. */
export function callout(group, best, kind, title, episode) {
  if (!best) return el("div", { class: `callout ${kind}` }, el("strong", {}, title), el("span", {}, NOTHING[kind]));
  if (best.ties > 3) return el("div", { class: `callout ${kind}` }, el("strong", {}, title), el("b", { class: "callout-value" }, signed(best.value, 2)), el("span", {}, `the same at ${best.ties} tokens: none is singled out`));
  const e = episode !== null && best.node.episodes.includes(episode) ? episode : best.node.episodes[0];
  const length = offsetOf(group, e + 1) - offsetOf(group, e), text = group.texts[offsetOf(group, e) + best.depth];
  return el("div", { class: `callout ${kind}` }, el("strong", {}, title), el("b", { class: "callout-value" }, signed(best.value, 2)),
    el("span", { class: "callout-text" }, textNodes(clip(textOf(group, e, 0, best.depth), -24)), el("mark", {}, textNodes(text.slice(0, 40))), el("span", { class: "rest" }, textNodes(clip(textOf(group, e, best.depth + 1, length), 16)))),
    el("span", {}, `token ${best.depth + 1} in ${tokensAt(group, best.node, best.depth, episode).length > 1 ? many(best.node.episodes.length, "response") : `response ${e + 1}`}${outcome(group, best)}${best.ties > 1 ? `; one of ${best.ties} alike` : ""}`));
}

function outcome(group, best) {
  const value = best.node.value;
  return value === null ? "" : `, ${best.node.episodes.length > 1 ? "mean reward" : "reward"} ${short(value)}`;
}

function clip(text, length) {
  if (length < 0) return text.length > -length ? `\u2026${text.slice(length)}` : text;
  return text.length > length ? `${text.slice(0, length)}\u2026` : text;
}

function responses(group, spec, set) {
  const given = group.credits[spec], names = Object.keys(group.rewards), reasons = group.columns.episode?.reason ?? [];
  const rest = Object.entries(group.columns.response ?? {}).filter(([name]) => ["origin", "truncated", "agent", "parent", "fork"].includes(name));
  const rows = group.response_offsets.slice(0, -1).map((_, e) => {
    const start = offsetOf(group, e), end = offsetOf(group, e + 1), own = given.error ? [] : given.advantages.slice(start, end);
    const b = group.response_offsets[e];
    return el("tr", {}, el("td", {}, el("button", { type: "button", class: "link", onclick: () => { set({ response: e }); document.querySelector(".tree-card")?.scrollIntoView({ block: "nearest" }); } }, `${e + 1}`)),
      names.map((name) => el("td", { class: "number" }, group.rewards[name][e].value === null ? (group.rewards[name][e].asked ? "unknown" : "\u2013") : rewardText(group.rewards[name][e].value))),
      el("td", { class: "reason" }, textNodes((reasons[e] ?? "").slice(0, 300))),
      el("td", { class: "number" }, end - start),
      el("td", { class: "number" }, own.length ? signed(own.reduce((a, x) => a + x, 0) / own.length, 3) : "\u2013"),
      el("td", { class: "number" }, own.length ? signed(own.reduce((a, x) => (Math.abs(x) > Math.abs(a) ? x : a), 0), 3) : "\u2013"),
      rest.map(([, values]) => el("td", {}, values[b] === null ? "\u2013" : plain(String(values[b])))),
      el("td", { class: "response-text" }, textNodes(clip(group.texts.slice(start, Math.min(end, start + 200)).join(""), 90))));
  });
  return el("details", { class: "card", open: rows.length <= 32 }, el("summary", {}, many(rows.length, "response")),
    el("div", { class: "scroll" }, el("table", { class: "list" }, el("thead", {}, el("tr", {}, el("th", {}, "#"), names.map((n) => el("th", { class: "number" }, plain(n === "outcome" ? "reward" : n))), el("th", {}, "reason"), el("th", { class: "number" }, "tokens"), el("th", { class: "number" }, "mean credit"), el("th", { class: "number" }, "largest"), rest.map(([n]) => el("th", {}, plain(n))), el("th", {}, "text"))), el("tbody", {}, rows))));
}

function pairs(group) {
  if (!group.pairs) return null;
  const { preferred, other, columns } = group.pairs;
  const cell = (e) => el("td", { class: "response-text" }, `${e + 1} `, el("small", {}, textNodes(clip(textOf(group, e, 0, 40), 60))));
  return el("details", { class: "card", open: true }, el("summary", {}, many(preferred.length, "preference")), preferred.length ? el("table", { class: "list" },
    el("thead", {}, el("tr", {}, el("th", {}, "preferred"), el("th", {}, "other"), Object.keys(columns).map((n) => el("th", { class: "number" }, plain(n))))),
    el("tbody", {}, preferred.map((p, i) => el("tr", {}, cell(p), cell(other[i]), Object.values(columns).map((v) => el("td", { class: "number" }, v[i] === null ? "\u2013" : typeof v[i] === "number" ? short(v[i]) : plain(String(v[i])))))))) : el("p", { class: "note" }, "none within this group"));
}

function spans(group, given) {
  const kinds = Object.entries(group.spans).filter(([kind]) => kind !== group.turns?.level);
  return kinds.map(([kind, { starts, ends, columns }]) => {
    const details = given.error ? {} : given.details[kind] ?? {}, all = { ...columns, ...details };
    const responseOf = (token) => group.token_offsets.findIndex((o, b) => token >= o && token < group.token_offsets[b + 1]);
    return el("details", { class: "card" }, el("summary", {}, `${many(starts.length, "span")} of kind ${plain(kind)}`), el("div", { class: "scroll" }, el("table", { class: "list" },
      el("thead", {}, el("tr", {}, el("th", {}, "response"), el("th", {}, "text"), Object.keys(all).map((n) => el("th", { class: "number" }, plain(n))))),
      el("tbody", {}, starts.slice(0, 500).map((start, i) => el("tr", {}, el("td", {}, responseOf(start) + 1), el("td", { class: "response-text" }, textNodes(clip(group.texts.slice(start, ends[i]).join(""), 100))),
        Object.values(all).map((v) => el("td", { class: "number" }, v[i] === null || v[i] === undefined ? "\u2013" : typeof v[i] === "number" ? short(v[i]) : plain(String(v[i])))))))), starts.length > 500 ? el("p", { class: "note" }, `the first 500 of ${starts.length}`) : null));
  });
}
