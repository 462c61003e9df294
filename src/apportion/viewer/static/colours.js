// Colours of quantities: credit on a scale around 0, everything else from low to high.

import { el } from "./dom.js";
import { short, signed } from "./numbers.js";

/** A scale around 0 up to `most` in magnitude. */
export function around(most) {
  const level = (value) => Math.max(-10, Math.min(10, Math.round((10 * value) / (most || 1))));
  return {
    kind: "credit",
    most,
    class: (value) => {
      if (value === null || value === undefined) return "none";
      const l = most > 0 ? level(value) : 0;
      return l < 0 ? `n${-l}` : `p${l}`;
    },
  };
}

/** A scale from `low` to `high`. */
export function between(low, high) {
  return {
    kind: "range",
    low,
    high,
    class: (value) => {
      if (value === null || value === undefined) return "none";
      const share = high > low ? (value - low) / (high - low) : 0;
      return `s${Math.max(0, Math.min(10, Math.round(10 * share)))}`;
    },
  };
}

/** The legend of a scale. */
export function legend(scale, title, words = ["loses", "earns"]) {
  const levels = scale.kind === "credit" ? [...Array(21).keys()].map((i) => i - 10) : [...Array(11).keys()];
  const name = (l) => (scale.kind === "credit" ? (l < 0 ? `n${-l}` : `p${l}`) : `s${l}`);
  const ends = scale.kind === "credit"
    ? [signed(-scale.most, 2), "0", signed(scale.most, 2)] : [short(scale.low), "", short(scale.high)];
  return el("div", { class: "legend", role: "img", "aria-label": `${title}: from ${ends[0]} to ${ends[2]}` },
    el("span", { class: "legend-title" }, title),
    el("span", { class: "legend-bar" },
      el("span", { class: "legend-cells" }, levels.map((l) => el("span", { class: name(l) }))),
      el("span", { class: "legend-ends" }, ends.map((end) => el("span", {}, end)))),
    scale.kind === "credit" ? el("span", { class: "legend-words" }, `orange ${words[0]}, blue ${words[1]}`) : null);
}
