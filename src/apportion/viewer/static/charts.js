// Curves over steps, drawn as SVG, with the numbers under the pointer. Charts of one page share their crosshair.

import { el, put, svg } from "./dom.js";
import { short } from "./numbers.js";

const WIDTH = 360, HEIGHT = 170, LEFT = 44, RIGHT = 10, TOP = 10, BOTTOM = 24;

/** Round numbers that cover a range: about four of them. */
export function ticks(low, high) {
  if (!(high > low)) return [low];
  const rough = (high - low) / 3, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** A set of charts whose crosshairs move together. */
export class Crosshair {
  constructor() {
    this.charts = [];
  }

  at(step) {
    for (const show of this.charts) show(step);
  }
}

function frame(title, note, low, high, first, last) {
  const x = (s) => LEFT + ((s - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (v) => TOP + (1 - (v - low) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": title });
  for (const t of ticks(low, high)) {
    drawing.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(t), y2: y(t) }),
      svg("text", { class: "tick", x: LEFT - 6, y: y(t) + 3.5, "text-anchor": "end" }, short(t)));
  }
  const marks = [...new Set(ticks(first, last).filter((t) => Number.isInteger(t)))];
  for (const t of marks) drawing.append(svg("text", { class: "tick", x: x(t), y: HEIGHT - 7, "text-anchor": "middle" }, t));
  const readout = el("div", { class: "readout" });
  const figure = el("figure", { class: "card chart-card" },
    el("figcaption", {}, el("strong", {}, title), note ? el("span", { class: "note" }, note) : null), drawing, readout);
  return { drawing, figure, readout, x, y };
}

function follow({ drawing, readout, x }, first, last, crosshair, describe) {
  const line = svg("line", { class: "cross", x1: 0, x2: 0, y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  drawing.append(line);
  const show = (step) => {
    if (step === null || step < first || step > last) {
      line.setAttribute("visibility", "hidden");
      put(readout, describe(null));
      return;
    }
    line.setAttribute("x1", x(step));
    line.setAttribute("x2", x(step));
    line.setAttribute("visibility", "visible");
    put(readout, describe(step));
  };
  crosshair.charts.push(show);
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const share = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    crosshair.at(Math.round(first + Math.max(0, Math.min(1, share)) * (last - first)));
  });
  drawing.addEventListener("pointerleave", () => crosshair.at(null));
  show(null);
}

/** Curves of one quantity, a line a run: series is [{name, steps, values, run}]. */
export function lines(title, note, series, crosshair, { zero = false, one = false, errors = [] } = {}) {
  const points = series.flatMap((s) => s.values.filter((v) => v !== null)).concat(errors.flatMap((e) => [e.low, e.high]).filter((v) => v !== null && v !== undefined));
  const steps = series.flatMap((s) => s.steps).concat(errors.map((e) => e.step));
  if (!points.length) return null;
  let low = Math.min(...points), high = Math.max(...points);
  if (zero) low = Math.min(low, 0);
  if (one) [low, high] = [Math.min(low, 0), Math.max(high, 1)];
  if (low === high && low === 0) high = 1;
  else if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const first = Math.min(...steps), last = Math.max(...steps);
  const made = frame(title, note, low, high, first, last);
  for (const s of series) {
    const path = [];
    let pen = "M";
    s.values.forEach((v, i) => {
      if (v === null) pen = "M";
      else {
        path.push(`${pen}${made.x(s.steps[i]).toFixed(1)} ${made.y(v).toFixed(1)}`);
        pen = "L";
      }
    });
    made.drawing.append(svg("path", { class: `curve run${s.run % 6}`, d: path.join("") }));
    if (s.values.length === 1 && s.values[0] !== null) made.drawing.append(svg("circle", { class: `dot run${s.run % 6}`, cx: made.x(s.steps[0]), cy: made.y(s.values[0]), r: 3 }));
  }
  for (const e of errors) {
    if (e.low !== null && e.low !== undefined) made.drawing.append(svg("line", { class: `interval run${e.run % 6}`, x1: made.x(e.step), x2: made.x(e.step), y1: made.y(e.low), y2: made.y(e.high) }));
    made.drawing.append(svg("circle", { class: `dot run${e.run % 6}`, cx: made.x(e.step), cy: made.y(e.value), r: 3.2 }));
  }
  follow(made, first, last, crosshair, (step) => series.map((s) => {
    let at = s.values.length - 1;
    if (step === null) while (at > 0 && s.values[at] === null) at -= 1;
    else at = s.steps.indexOf(step);
    const value = at >= 0 ? s.values[at] : null;
    return el("span", { class: `read run${s.run % 6}` }, el("i", {}), series.length > 1 ? `${s.name} ` : "",
      el("b", {}, short(value)), step === null ? (s.steps.length ? ` at step ${s.steps[at]}` : "") : ` at step ${step}`);
  }));
  return made.figure;
}

/** Shares that add up to one, as bands: bands is [{name, values, class}], from the bottom up. */
export function bands(title, note, steps, parts, crosshair) {
  if (!steps.length) return null;
  const wide = steps.length === 1 ? [steps[0] - 0.5, steps[0] + 0.5] : steps;
  const made = frame(title, note, 0, 1, wide[0], wide[wide.length - 1]);
  const column = (i) => (steps.length === 1 ? 0 : i);
  const below = wide.map(() => 0);
  for (const part of parts) {
    const floor = below.map((v, i) => [made.x(wide[i]), made.y(v)]);
    wide.forEach((_, i) => { below[i] += part.values[column(i)] ?? 0; });
    const roof = below.map((v, i) => [made.x(wide[i]), made.y(v)]);
    const outline = [...roof, ...floor.reverse()].map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
    made.drawing.append(svg("path", { class: `band ${part.class}`, d: `${outline}Z` }));
  }
  follow(made, wide[0], wide[wide.length - 1], crosshair, (step) => {
    const at = step === null ? steps.length - 1 : Math.max(0, steps.indexOf(step));
    return parts.map((part) => el("span", { class: `read band-key ${part.class}` }, el("i", {}), `${part.name} `, el("b", {}, `${Math.round(100 * (part.values[at] ?? 0))}%`)));
  });
  return made.figure;
}
