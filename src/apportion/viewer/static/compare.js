// Methods against one another: over the run, and on one group side by side.

import * as address from "./address.js";
import { around, between, legend } from "./colours.js";
import { ask, askAgreement, askGroup, offline, pairOf } from "./data.js";
import { el, empty, put } from "./dom.js";
import { callout, creditLabel, hover, key } from "./group.js";
import { keepDisagreement, known, refresh } from "./listing.js";
import { percent, short, signed } from "./numbers.js";
import { tip } from "./panel.js";
import { rangeOf } from "./rewards.js";
import { complaints } from "./run.js";
import { creditOf, extreme, places, placeOf, rewardsOf } from "./shape.js";
import { nodes as textNodes, plain } from "./text.js";
import { drawTree, suits } from "./tree.js";

const MOST = 3;

/** Draws the page. */
export async function draw(place, at, runs, alive) {
  const run = Number(at.run || 0);
  const offered = await ask("methods", { run });
  const usable = offered.methods.filter((m) => !m.missing.length && (!offline() || offered.held.includes(m.credit)));
  const labels = new Map(usable.map((m) => [m.credit, m.label]));
  const asked = at.credit.length ? at.credit : ((await pairOf(run)) ?? []);
  const specs = asked.slice(0, MOST);
  const overall = el("section", { class: "overall" }), own = el("section", {});
  put(place, el("header", { class: "page-head" }, el("h1", {}, "Compare methods"), el("p", { class: "lead" }, "The same rollouts, credited anew. Credit is shown in units of each method\u2019s own root mean square, so that scale alone is no difference.")), picker(usable, specs), own, overall);
  if (specs.length < 2) {
    put(own, empty("Choose two or three methods", usable.length < 2 ? "Fewer than two can credit these rollouts." : null));
    return;
  }
  put(overall, el("p", { class: "note", role: "status" }, "comparing\u2026"));
  const rms = new Map();
  const drawGroup = async () => {
    const chosen = at.group !== undefined ? { part: Number(at.part || 0), group: Number(at.group) } : await first(run);
    if (!chosen || !alive()) return;
    const group = await askGroup(run, chosen.part, chosen.group, specs);
    if (alive()) put(own, side(group, run, runs, specs, labels, rms, at));
  };
  await drawGroup();
  try {
    const result = await askAgreement(run, specs, (state) => put(overall, el("p", { class: "note", role: "status" }, `comparing: ${state.done} of ${state.total} steps`)), () => !alive());
    if (!result || !alive()) return;
    keepDisagreement(run, result.by_group);
    result.specs.forEach((spec, i) => rms.set(spec, result.rms[i]));
    put(overall, complaints({ complaints: result.left_out }), agreement(result, labels), apart(result, labels, run, runs[run].is_run));
    if (at.group === undefined && result.tokens_apart.length) Object.assign(at, { part: result.tokens_apart[0].part, group: result.tokens_apart[0].group, token: `${result.tokens_apart[0].episode}.${result.tokens_apart[0].token}` });
    await drawGroup();
  } catch (error) {
    if (alive()) put(overall, empty("No comparison over the run", error.message));
  }
}

async function first(run) {
  await refresh(run);
  return known(run).rows.find((row) => row.health === "mixed") ?? known(run).rows[0] ?? null;
}

function picker(usable, specs) {
  return el("div", { class: "picker", role: "group", "aria-label": "methods to compare" }, usable.map((m) => {
    const on = specs.includes(m.credit), full = !on && specs.length >= MOST;
    const next = on ? specs.filter((s) => s !== m.credit) : [...specs, m.credit];
    return el("button", { type: "button", class: `chip ${on ? "on" : ""}`, "aria-pressed": String(on), disabled: full, title: full ? `at most ${MOST}` : plain(m.bias ?? ""), onclick: () => { location.hash = address.changed({ credit: next }); } }, plain(m.label));
  }));
}

function side(group, run, runs, specs, labels, rms, at) {
  const tips = document.getElementById("tip"), layout = at.layout || suits(group);
  const amounts = new Map(specs.map((spec) => [spec, creditOf(group, spec, creditLabel(spec, labels))]));
  const usable = specs.filter((spec) => amounts.get(spec));
  const unit = new Map(usable.map((spec) => [spec, rms.get(spec) || groupRms(group, spec) || 1]));
  const scaled = new Map(usable.map((spec) => [spec, { ...amounts.get(spec), of: (node, depth) => { const v = amounts.get(spec).of(node, depth); return v === null ? null : v / unit.get(spec); } }]));
  let most = 0, furthest = 0;
  const difference = (node, depth) => {
    const values = usable.map((spec) => scaled.get(spec).of(node, depth));
    if (values.some((v) => v === null)) return null;
    return usable.length === 2 ? values[0] - values[1] : Math.max(...values) - Math.min(...values);
  };
  for (const [node, depth] of places(group)) {
    for (const spec of usable) most = Math.max(most, Math.abs(scaled.get(spec).of(node, depth) ?? 0));
    furthest = Math.max(furthest, Math.abs(difference(node, depth) ?? 0));
  }
  const pinned = (at.token ?? "").split(".").map(Number), pin = pinned.length === 2 ? placeOf(group, pinned[0], pinned[1]) : null;
  const pins = pin ? [{ node: pin, depth: pinned[1], kind: "pin" }] : [];
  const trees = [];
  const one = (title, amount, scale, words, marks, said = null) => {
    const tree = drawTree(group, { amount, scale, layout, numbers: true, episode: null, marks, rewards: rangeOf(runs[run], rewardsOf(group)),
      onhover: (found, event) => {
        hover(tips, found, event, () => [...tip(group, found, amount, null).slice(0, 1), ...usable.map((spec) => el("span", { class: "tip-line" }, el("b", { "data-value": amounts.get(spec).of(found.node, found.depth) ?? "" }, signed(amounts.get(spec).of(found.node, found.depth))), ` ${plain(labels.get(spec) ?? spec)}`, el("small", {}, ` ${signed(scaled.get(spec).of(found.node, found.depth), 2)} rms`)))]);
        for (const other of trees) for (const lit of other.querySelectorAll(".lit")) lit.classList.remove("lit");
        if (found) for (const other of trees) other.querySelector(`.tok[data-node="${group.tree.indexOf(found.node)}"][data-depth="${found.depth}"]`)?.classList.add("lit");
      },
      onpick: (found) => { location.hash = address.write({ page: "group", run: run || "", part: group.part || "", group: group.group, credit: [specs[0]], token: `${found.node.episodes[0]}.${found.depth}` }); } });
    trees.push(tree);
    return el("div", { class: "card tree-card" }, el("div", { class: "tree-head" }, el("h3", {}, title), legend(scale, "times the root mean square", words)), said, el("div", { class: "scroll" }, tree));
  };
  const method = (spec, i) => {
    const best = extreme(group, scaled.get(spec), 1);
    const own = best && best.ties <= 3 ? [{ ...best, kind: "most" }] : [];
    return one(plain(labels.get(spec) ?? spec), scaled.get(spec), around(most), undefined, [...own, ...pins.filter((pin) => !own.some((m) => m.node === pin.node && m.depth === pin.depth))],
      [i ? null : key(group, null, layout), el("div", { class: "callouts" }, callout(group, best, "most", "\u25b2 Earned most", null))]);
  };
  const apart = { kind: usable.length === 2 ? "credit" : "range", of: difference, label: "difference" };
  const two = usable.length === 2;
  const strongest = two ? [extreme(group, apart, 1), extreme(group, apart, -1)].filter(Boolean).sort((a, b) => Math.abs(b.value) - Math.abs(a.value))[0] : extreme(group, apart, 1);
  const marks = strongest && strongest.ties <= 3 ? [{ ...strongest, kind: "pin" }] : [];
  return [
    el("h2", {}, el("a", { href: address.write({ page: "group", run: run || "", part: group.part || "", group: group.group }) }, `Group ${plain(String(group.name ?? group.group))}`), runs[run].is_run ? `, step ${group.part}` : ""),
    specs.filter((spec) => !amounts.get(spec)).map((spec) => el("p", { class: "warning" }, plain(`${spec}: ${group.credits[spec]?.error ?? "not here"}`))),
    usable.length ? el("div", { class: "panels" }, usable.map(method),
      usable.length > 1 ? one(two ? `${plain(labels.get(usable[0]) ?? usable[0])} minus ${plain(labels.get(usable[1]) ?? usable[1])}` : "How far they are apart", { ...apart, at: () => null }, two ? around(furthest) : between(0, furthest), ["less", "more"], pins.length ? pins : marks, el("div", { class: "callouts" }, callout(group, strongest, "apart", "Furthest apart", null))) : null) : null,
  ];
}

function groupRms(group, spec) {
  const values = group.credits[spec].advantages.filter((_, t) => group.trained[t]);
  return Math.sqrt(values.reduce((a, v) => a + v * v, 0) / (values.length || 1));
}

function agreement(result, labels) {
  const names = result.specs.map((spec) => plain(labels.get(spec) ?? spec));
  const cell = (matrix, i, j, what) => {
    const [value, low, high] = matrix[i][j];
    return el("td", { class: `heat ${value === null ? "none" : around(1).class(value)}`, title: low === null ? what : `${what}, 95% interval ${short(low)} to ${short(high)}` }, value === null ? "\u2013" : value.toFixed(3).replace("-", "\u2212"), low === null ? null : el("small", {}, `${low.toFixed(2)} to ${high.toFixed(2)}`.replaceAll("-", "\u2212")));
  };
  return el("div", { class: "card" }, el("h2", {}, "Agreement over the run"), el("div", { class: "scroll" }, el("table", { class: "matrix" },
    el("thead", {}, el("tr", {}, el("th", {}), names.map((n) => el("th", {}, n)), el("th", {}, "root mean square"), el("th", {}, "tokens with credit"))),
    el("tbody", {}, result.specs.map((_, i) => el("tr", {}, el("th", {}, names[i]), result.specs.map((__, j) => (i === j ? el("td", { class: "self" }, "") : cell(i < j ? result.pearson : result.spearman, i, j, i < j ? "Pearson" : "Spearman"))), el("td", { class: "number" }, short(result.rms[i])), el("td", { class: "number" }, percent(result.earning[i]))))))),
  el("p", { class: "note" }, `Correlation of credit over ${result.tokens.toLocaleString("en")} trained tokens in ${result.groups.toLocaleString("en")} groups: Pearson above the diagonal, Spearman below.`));
}

function apart(result, labels, run, is_run) {
  const names = result.specs.map((spec) => plain(labels.get(spec) ?? spec));
  const most = Math.max(1e-9, ...result.tokens_apart.flatMap((one) => one.advantages.map((a, i) => Math.abs(a) / (result.rms[i] || 1))));
  return el("div", { class: "card" }, el("h2", {}, "Tokens of largest disagreement"), result.tokens_apart.length ? el("div", { class: "scroll" }, el("table", { class: "list apart" },
    el("thead", {}, el("tr", {}, is_run ? el("th", {}, "step") : null, el("th", {}, "group"), el("th", {}, "token"), names.map((n) => el("th", { class: "number" }, n)), el("th", { class: "number" }, "apart, in rms"))),
    el("tbody", {}, result.tokens_apart.slice(0, 25).map((one) => el("tr", {}, is_run ? el("td", {}, one.part) : null,
      el("td", {}, el("a", { href: address.changed({ part: one.part || "", group: one.group, token: `${one.episode}.${one.token}` }) }, one.group)),
      el("td", { class: "context" }, textNodes(one.before), el("mark", {}, textNodes(one.text ?? "")), textNodes(one.after)),
      one.advantages.map((a, i) => el("td", { class: "number" }, el("span", { class: `pill ${around(most).class(a / (result.rms[i] || 1))}` }, signed(a, 3)))),
      el("td", { class: "number" }, one.apart.toFixed(2))))))) : empty("They agree about every token"));
}
