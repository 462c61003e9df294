// The tree of a group, drawn as a fan (branches side by side) or as an outline (for long responses).

import { el, put, svg } from "./dom.js";
import { brief, many, rewardText, short, signed } from "./numbers.js";
import { kindOf, shareOf } from "./rewards.js";
import { isTrained, offsetOf, rewardOf } from "./shape.js";
import { nodes as textNodes, plain } from "./text.js";

const AT_ONCE = 1200;
const FAN_DEPTH = 60, FAN_CHARACTERS = 140;

/** The layout that suits a group. */
export function suits(group) {
  const depth = group.tree.reduce((most, node) => Math.max(most, node.end), 0);
  const width = group.tree.reduce((most, node) => Math.max(most, group.texts.slice(offsetOf(group, node.episodes[0]), offsetOf(group, node.episodes[0]) + node.end).join("").length), 0);
  return depth <= FAN_DEPTH && width <= FAN_CHARACTERS && !group.texts.some((t) => t.includes("\n")) ? "fan" : "outline";
}

/** A drawn tree. Options: amount, scale, layout, numbers, rewards (their range, see rewards.js), episode (whose own credit is shown), marks, onhover, onpick, onepisode. */
export function drawTree(group, options) {
  const frame = el("div", { class: `tree ${options.layout} ${options.numbers ? "numbered" : ""} ${options.episode !== null ? "one" : ""}` });
  const drawn = new Map();
  if (options.layout === "fan") fan(group, options, frame, drawn);
  else outline(group, options, frame, drawn);
  const place = (target) => {
    const token = target.closest?.(".tok");
    return token && frame.contains(token) ? { node: group.tree[Number(token.dataset.node)], depth: Number(token.dataset.depth), token } : null;
  };
  frame.addEventListener("pointerover", (event) => options.onhover?.(place(event.target), event));
  frame.addEventListener("pointerleave", (event) => options.onhover?.(null, event));
  frame.addEventListener("click", (event) => {
    const found = place(event.target);
    if (found) options.onpick?.(found);
  });
  frame.addEventListener("keydown", (event) => {
    const found = (event.key === "Enter" || event.key === " ") && place(event.target);
    if (found) {
      event.preventDefault();
      options.onpick?.(found);
    }
  });
  return frame;
}

function tokenCell(group, options, number, depth) {
  const node = group.tree[number], offset = offsetOf(group, node.episodes[0]) + depth;
  const trained = isTrained(group, node, depth), value = trained ? options.amount.of(node, depth, options.episode) : null;
  const mark = options.marks?.find((m) => m.node === node && m.depth === depth);
  const cell = el("span", { class: `tok ${trained ? options.scale.class(value) : "untrained"} ${mark ? `mark-${mark.kind}` : ""}`, "data-node": number, "data-depth": depth,
    tabindex: mark ? "0" : null });
  const text = group.texts[offset];
  const word = el("span", { class: "word" }, text === "" ? el("i", { class: "glyph" }, "\u2205") : textNodes(text, options.layout === "outline"));
  cell.append(word);
  if (options.numbers) cell.append(el("span", { class: "num" }, mark ? { most: "\u25b2", least: "\u25bc", pin: "" }[mark.kind] : "", !trained ? "" : mark && mark.kind !== "pin" ? signed(value, 2) : brief(value)));
  return cell;
}

function tokens(group, options, number, into) {
  const node = group.tree[number];
  const until = (end, from) => {
    for (let depth = from; depth < end; depth++) {
      const heard = heardBefore(group, node, depth);
      if (heard !== null) into.append(el("span", { class: "heard", title: "what the policy heard next" }, textNodes(heard, options.layout === "outline")));
      into.append(tokenCell(group, options, number, depth));
    }
    if (end < node.end) {
      const more = el("button", { class: "more", type: "button", onclick: () => { more.remove(); until(Math.min(node.end, end + 4 * AT_ONCE), end); } }, `show ${many(node.end - end, "more token")}`);
      into.append(more);
    }
  };
  const wanted = options.marks?.filter((m) => m.node === node).map((m) => m.depth + 1) ?? [];
  until(Math.min(node.end, Math.max(node.start + AT_ONCE, ...wanted)), node.start);
}

function heardBefore(group, node, depth) {
  const episode = node.episodes[0], token = offsetOf(group, episode) + depth;
  for (let b = group.response_offsets[episode] + 1; b < group.response_offsets[episode + 1]; b++) {
    if (group.token_offsets[b] === token) return group.prompts[b] ?? "";
  }
  return null;
}

function badge(node, total, range) {
  const shown = node.value === null ? "\u2013" : short(node.value);
  const gauge = el("span", { class: "gauge" });
  if (node.value !== null) {
    const level = el("span", {});
    level.style.height = `${100 * shareOf(node.value, range)}%`;
    gauge.append(level);
  }
  return el("span", { class: "badge", title: `value ${shown}: mean reward of the ${many(node.episodes.length, "response")} (of ${total}) through here` },
    gauge, el("span", { class: "badge-text" }, el("b", {}, shown), el("small", {}, `\u00d7${node.episodes.length}`)));
}

function leaf(group, options, ends) {
  const kinds = new Map();
  for (const e of ends) {
    const reward = rewardOf(group, e);
    const [kind, said] = reward.value === null ? (reward.asked ? ["unknown", "unknown"] : ["none", "no reward"])
      : [kindOf(reward.value, options.rewards), rewardText(reward.value)];
    if (!kinds.has(said)) kinds.set(said, { kind, episodes: [] });
    kinds.get(said).episodes.push(e);
  }
  return el("span", { class: "leaf" }, [...kinds].map(([said, { kind, episodes }]) => {
    const on = episodes.includes(options.episode);
    return el("button", { type: "button", class: `reward ${kind} ${on ? "on" : ""}`, "aria-pressed": on ? "true" : "false",
      title: `reward ${said}, response ${episodes.map((e) => e + 1).join(", ")}; press to see the credit of one response alone`,
      onclick: () => options.onepisode?.(on ? (episodes[episodes.indexOf(options.episode) + 1] ?? null) : episodes[0]) },
    kind === "number" ? null : el("i", {}, { full: "\u2713", zero: "\u2717", unknown: "?", none: "\u2013", part: "\u25d0" }[kind]), el("b", {}, said),
    episodes.length > 1 ? el("small", {}, `\u00d7${episodes.length}`) : null);
  }));
}

function ordered(group, node) {
  const value = (n) => group.tree[n].value ?? -Infinity;
  return [...node.children].sort((a, b) => value(b) - value(a) || group.tree[b].episodes.length - group.tree[a].episodes.length || a - b);
}

function off(options, node) {
  return options.episode !== null && !node.episodes.includes(options.episode) ? "off" : "";
}

function fan(group, options, frame, drawn) {
  const total = group.tree[0].episodes.length, links = svg("svg", { class: "links", "aria-hidden": "true" });
  const earning = wayTo(group, options.marks?.find((m) => m.kind === "most")?.node);
  const build = (number) => {
    const node = group.tree[number], children = ordered(group, node);
    const stem = el("div", { class: "stem" });
    if (number === 0) stem.append(el("span", { class: "prompt-stub", title: plain(group.prompt).slice(0, 400) }, el("small", {}, "prompt"), el("span", {}, plain(group.prompt.length > 36 ? `\u2026${group.prompt.slice(-34)}` : group.prompt) || "(none)")));
    if (number === 0 || (node.episodes.length > 1 && node.episodes.length < total)) stem.append(badge(node, total, options.rewards));
    const run = el("span", { class: "run" });
    tokens(group, options, number, run);
    if (number) stem.append(run);
    drawn.set(number, stem);
    const box = el("div", { class: `node ${off(options, node)}` }, stem);
    if (children.length) {
      const kids = el("div", { class: "kids" }, children.map(build));
      if (node.ends.length) kids.append(el("div", { class: "node" }, el("span", { class: "filler" }), leaf(group, options, node.ends)));
      box.append(kids);
    } else box.append(el("span", { class: "filler" }), node.ends.length ? leaf(group, options, node.ends) : null);
    return box;
  };
  frame.append(links, build(0));
  const link = () => {
    const box = frame.getBoundingClientRect();
    if (!box.width) return;
    const shift = [frame.scrollLeft - box.left, frame.scrollTop - box.top];
    put(links);
    links.setAttribute("width", frame.scrollWidth);
    links.setAttribute("height", frame.scrollHeight);
    group.tree.forEach((node, number) => {
      const from = drawn.get(number).getBoundingClientRect();
      const x0 = from.right + shift[0], y0 = from.top + from.height / 2 + shift[1];
      for (const child of node.children) {
        const to = drawn.get(child).getBoundingClientRect(), x1 = to.left + shift[0], y1 = to.top + to.height / 2 + shift[1], bend = (x1 - x0) / 2;
        const forced = node.episodes.length > 1 && group.tree[child].episodes.some((e) => group.columns.response?.fork?.[group.response_offsets[e]] === group.tree[child].start);
        const width = 1.5 + (9 * group.tree[child].episodes.length) / total;
        links.append(svg("path", { class: `link ${earning.has(child) ? "earning" : ""} ${forced ? "forced" : ""} ${off(options, group.tree[child])}`, d: `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}`, "stroke-width": width.toFixed(1) }));
      }
    });
  };
  new ResizeObserver(link).observe(frame);
}

/** The nodes from the beginning to one, by their numbers. */
function wayTo(group, node) {
  const way = new Set();
  for (let number = node ? group.tree.indexOf(node) : -1; number > 0; number = group.tree[number].parent) way.add(number);
  return way;
}

function outline(group, options, frame) {
  const total = group.tree[0].episodes.length;
  const waiting = [[0, 0]];
  while (waiting.length) {
    const [number, level] = waiting.pop();
    const node = group.tree[number], children = ordered(group, node);
    if (number) {
      const flow = el("div", { class: "flow" });
      tokens(group, options, number, flow);
      const who = node.episodes.length === total ? "all responses" : node.episodes.length > 3 ? many(node.episodes.length, "response") : `response ${node.episodes.map((e) => e + 1).join(", ")}`;
      const box = el("div", { class: `onode ${off(options, node)}` }, el("div", { class: "ohead" }, badge(node, total, options.rewards), el("span", {}, who, children.length > 1 ? `, forks into ${children.length}` : ""), node.ends.length ? leaf(group, options, node.ends) : null), flow);
      box.style.marginLeft = `${Math.min(level, 12) * 18}px`;
      frame.append(box);
    } else if (node.ends.length) frame.append(el("div", { class: "onode" }, "empty responses ", leaf(group, options, node.ends)));
    waiting.push(...children.reverse().map((child) => [child, number && children.length > 1 ? level + 1 : level]));
  }
}
