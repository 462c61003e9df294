// The page of a run: how accurate it was before and after, and its curves, beside those of other runs.

import * as address from "./address.js";
import { Crosshair, bands, lines } from "./charts.js";
import { ask } from "./data.js";
import { el, empty } from "./dom.js";
import { known, refresh } from "./listing.js";
import { many, percent, short } from "./numbers.js";
import { plain } from "./text.js";

// What is plotted first, under which name; every other metric follows under its own.
const KNOWN = [
  ["reward", "Reward", "mean over the known responses of a step", { one: true }],
  ["entropy", "Entropy", "of the policy, mean over tokens, in nats", { zero: true }],
  ["advantage_std", "Spread of credit", "standard deviation of advantages over trained tokens", { zero: true }],
  ["response_length", "Response length", "tokens", { zero: true }],
  ["unknown", "Unknown rewards", "share of responses without a verdict", { one: true }],
  ["loss", "Loss", "of the objective", {}],
  ["grad_norm", "Gradient norm", "before it is scaled down", { zero: true }],
  ["kl_old", "Distance moved in a step", "divergence from the policy that sampled", {}],
  ["clip_fraction", "Clipped", "share of tokens", { zero: true }],
  ["truncated", "Cut off", "share of responses that reached the length limit", { one: true }],
  ["mismatch_max", "Sampler against trainer", "largest difference of log-probs", { zero: true }],
  ["tokens_per_second", "Speed", "tokens a second", { zero: true }],
];
const ELSEWHERE = new Set(["step", "accuracy", "groups_right", "groups_wrong", "groups_mixed", "groups_unknown", "step_seconds", "seconds", "learning_rate"]);
const HEALTH = [["groups_right", "all right", "right"], ["groups_mixed", "mixed", "mixed"], ["groups_wrong", "all wrong", "wrong"], ["groups_unknown", "unscored", "unscored"]];

/** Draws the page. */
export async function draw(place, at, runs, alive) {
  const run = Number(at.run || 0);
  const shown = [run, ...(at.with ? at.with.split(".").map(Number).filter((n) => n !== run && runs[n]) : [])];
  const parts = await Promise.all(shown.map((n) => ask("run", { run: n })));
  await Promise.all(shown.map((n) => refresh(n)));
  if (!alive()) return;
  const own = parts[0];
  place.replaceChildren();
  place.append(heading(runs[run], own), complaints(own), others(runs, run, shown));
  if (runs[run].is_run) place.append(accuracy(runs, shown, parts));
  const charts = curves(runs, shown, parts);
  if (charts) place.append(charts);
  else if (runs[run].is_run) place.append(empty("No step is finished yet", "Curves appear here as steps are done; this page follows along."));
  if (runs[run].is_run && Object.keys(own.config).length) place.append(settings(own));
}

function heading(run, own) {
  const config = own.config, credit = config.credit;
  const facts = [
    config.model && ["model", config.model],
    config.environment ? ["environment", config.environment] : config.tasks && ["tasks", [].concat(config.tasks).join(", ")],
    credit && ["credit", credit],
    config.objective && ["objective", [].concat(config.objective).join(" + ")],
    own.curves.step && ["steps", `${own.curves.step.at(-1)} of ${config.steps ?? "?"}`],
    typeof own.summary.seconds === "number" && ["took", `${short(own.summary.seconds)} s`],
  ].filter(Boolean);
  return el("header", { class: "page-head" }, el("h1", {}, plain(run.name)),
    el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, plain(String(value)))))),
    el("p", { class: "go" }, el("a", { class: "button", href: address.write({ page: "groups", run: address.read().run }) }, "Look at its groups"), " ",
      el("a", { class: "button quiet", href: address.write({ page: "compare", run: address.read().run }) }, "Compare methods")));
}

/** What could not be read, each in a sentence. */
export function complaints(own) {
  const said = own.complaints || [];
  return said.length ? el("div", { class: "warning", role: "alert" }, said.slice(0, 5).map((s) => el("p", {}, plain(s))),
    said.length > 5 ? el("p", {}, `and ${said.length - 5} more`) : null) : el("span", {});
}

function others(runs, run, shown) {
  if (runs.length < 2) return el("span", {});
  return el("p", { class: "overlay" }, "Beside it: ", runs.map((other, n) => {
    if (n === run || !other.is_run) return null;
    const on = shown.includes(n);
    const now = on ? shown.filter((m) => m !== n && m !== run) : [...shown.filter((m) => m !== run), n];
    return el("a", { class: `chip run${n % 6} ${on ? "on" : ""}`, href: address.changed({ with: now.join(".") }) }, el("i", {}), plain(other.name));
  }));
}

function measured(estimate) {
  return typeof estimate?.value === "number";
}

function accuracy(runs, shown, parts) {
  const rows = shown.flatMap((n, i) => [["sampled", (e) => e.sampled?.["pass@1"]], ["greedy", (e) => e.greedy]].map(([kind, of]) => {
    const evaluations = parts[i].evaluations.filter((e) => measured(of(e)));
    return evaluations.length ? { name: shown.length > 1 ? `${runs[n].name}, ${kind}` : kind, before: of(evaluations[0]), after: of(evaluations.at(-1)), first: evaluations[0].step, last: evaluations.at(-1).step, run: n } : null;
  })).filter(Boolean);
  if (!rows.length) return empty("No evaluation", "This run measured no held-out prompts (--eval-prompts 0), or has not begun to.");
  return el("section", { class: "card accuracy" }, el("h2", {}, "Accuracy on held-out prompts"),
    el("div", { class: "scoreboard" }, rows.map((row) => el("div", { class: "score" },
      el("span", { class: "score-name" }, plain(row.name)),
      el("span", { class: "score-before" }, percent(row.before.value)),
      el("span", { class: "score-arrow" }, row.last === row.first ? "" : "\u2192"),
      el("span", { class: "score-after" }, row.last === row.first ? "" : percent(row.after.value)),
      track(row)))),
    el("p", { class: "note" }, `95% intervals over prompts, from ${[...new Set(rows.map((row) => `step ${row.first} to ${row.last}`))].join(" and ")}.`));
}

function track(row) {
  const bar = (estimate, kind) => {
    const span = el("span", { class: `span ${kind}` }), mark = el("span", { class: `mark ${kind}` });
    span.style.left = `${100 * (estimate.low ?? estimate.value)}%`;
    span.style.width = `${100 * ((estimate.high ?? estimate.value) - (estimate.low ?? estimate.value))}%`;
    mark.style.left = `${100 * estimate.value}%`;
    return [span, mark];
  };
  return el("span", { class: "track" }, bar(row.before, "before"), row.last === row.first ? null : bar(row.after, "after"));
}

function curves(runs, shown, parts) {
  const cross = new Crosshair();
  const series = (name) => shown.map((n, i) => ({ name: runs[n].name, run: n, steps: parts[i].curves.step || [], values: parts[i].curves[name] || [] })).filter((s) => s.values.length);
  const figures = [];
  const names = new Set(parts.flatMap((p) => Object.keys(p.curves)));
  const passes = [...new Set(parts.flatMap((p) => p.evaluations.flatMap((e) => Object.keys(e.sampled || {}))))];
  const add = (figure) => figure && figures.push(figure);
  const [first, ...rest] = KNOWN;
  add(lines(first[1], first[2], series(first[0]), cross, first[3]));
  for (const pass of passes) {
    const errors = shown.flatMap((n, i) => parts[i].evaluations.filter((e) => measured(e.sampled?.[pass])).map((e) => ({ run: n, step: e.step, ...e.sampled[pass] })));
    const points = shown.map((n, i) => {
      const there = parts[i].evaluations.filter((e) => measured(e.sampled?.[pass]));
      return { name: runs[n].name, run: n, steps: there.map((e) => e.step), values: there.map((e) => e.sampled[pass].value) };
    }).filter((s) => s.values.length);
    add(lines(pass === "pass@1" ? "Held-out accuracy" : `Held-out ${pass}`, "sampled, 95% intervals over prompts", points, cross, { one: true, errors }));
  }
  const health = parts[0].curves;
  if (health.groups_mixed) add(bands("Group health", "shares of groups; only mixed groups teach a group-relative method", health.step, HEALTH.map(([name, label, kind]) => ({ name: label, values: health[name] || [], class: kind })), cross));
  for (const [name, title, note, options] of rest) if (names.has(name)) add(lines(title, note, series(name), cross, options));
  add(largest(runs, shown, cross));
  for (const name of names) if (/_seconds$|^seconds\/|^time\//.test(name)) add(lines(name === "step_seconds" ? "Time" : plain(name), name === "step_seconds" ? "seconds a step" : "seconds", series(name), cross, { zero: true }));
  for (const name of names) {
    if (ELSEWHERE.has(name) || KNOWN.some(([n]) => n === name) || /_seconds$|^seconds\/|^time\//.test(name)) continue;
    add(lines(plain(name), "", series(name), cross));
  }
  return figures.length ? el("section", { class: "charts", "aria-label": "curves" }, figures) : null;
}

function largest(runs, shown, cross) {
  const all = shown.map((n) => {
    const most = new Map();
    for (const row of known(n).rows) if (row.credit !== null) most.set(row.part, Math.max(most.get(row.part) ?? 0, row.credit));
    const steps = [...most.keys()].sort((a, b) => a - b);
    return { name: runs[n].name, run: n, steps, values: steps.map((s) => most.get(s)) };
  }).filter((s) => s.steps.length && runs[s.run].is_run);
  return all.length ? lines("Largest credit", "magnitude of the largest advantage of a step", all, cross, { zero: true }) : null;
}

function settings(own) {
  const given = Object.entries(own.config).filter(([, value]) => value !== null && !(Array.isArray(value) && !value.length));
  return el("details", { class: "card settings" }, el("summary", {}, many(given.length, "setting")),
    el("dl", {}, given.map(([name, value]) => el("div", {}, el("dt", {}, plain(name)), el("dd", {}, plain(typeof value === "string" ? value : JSON.stringify(value)))))));
}
