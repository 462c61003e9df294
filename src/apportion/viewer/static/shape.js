// What a group is made of: where tokens of its tree stand, and quantities of tokens.

import { around, between } from "./colours.js";

/** The first token of an episode, among all of the group. */
export function offsetOf(group, episode) {
  return group.token_offsets[group.response_offsets[episode]];
}

/** The episode a token of the group belongs to. */
export function episodeOf(group, token) {
  let episode = 0;
  while (offsetOf(group, episode + 1) <= token) episode += 1;
  return episode;
}

/** The tokens of the group that a place of the tree stands for, one an episode that passes. Where some are trained the
 * others are left out: what a branch has from its parent stands there once, as the parent's. */
export function tokensAt(group, node, depth, episode = null) {
  const passing = episode !== null && node.episodes.includes(episode) ? [episode] : node.episodes;
  const all = passing.map((e) => ({ episode: e, token: offsetOf(group, e) + depth }));
  const trained = all.filter(({ token }) => group.trained[token]);
  return trained.length ? trained : all;
}

/** Whether a place of the tree may be trained on. */
export function isTrained(group, node, depth) {
  return node.episodes.some((e) => group.trained[offsetOf(group, e) + depth]);
}

function mean(values) {
  return values.length ? values.reduce((a, b) => a + b, 0) / values.length : null;
}

/** Credit under a method as a quantity of the places of the tree: over the responses that share it, their mean. */
export function creditOf(group, spec, label) {
  const given = group.credits[spec];
  if (!given || given.error) return null;
  const at = (token, episode) => (given.unknown[episode] || !group.trained[token] ? null : given.advantages[token]);
  return quantity(group, (t, e) => at(t, e), label, "credit");
}

/** A token column, or a method's detail, as a quantity of the places of the tree. */
export function columnOf(group, values, label) {
  return quantity(group, (token) => values[token], label, "range");
}

function quantity(group, at, label, kind) {
  const of = (node, depth, episode = null) => mean(tokensAt(group, node, depth, episode).map(({ token, episode: e }) => at(token, e)).filter((v) => v !== null && v !== undefined));
  const shown = [...places(group)].filter(([node, depth]) => isTrained(group, node, depth)).map(([node, depth]) => of(node, depth)).filter((v) => v !== null);
  const own = kind === "credit" ? shown.map(Math.abs) : shown;
  const most = own.reduce((a, b) => Math.max(a, b), kind === "credit" ? 0 : -Infinity), least = shown.reduce((a, b) => Math.min(a, b), Infinity);
  return { at, of, label, kind, scale: kind === "credit" ? around(most) : between(shown.length ? least : 0, shown.length ? most : 1) };
}

/** Every place of the tree: [node, depth]. */
export function* places(group) {
  for (const node of group.tree) for (let depth = node.start; depth < node.end; depth++) yield [node, depth];
}

/** The place with the most of a quantity (or, with sign -1, the least), and how many are tied with it; null without one. */
export function extreme(group, amount, sign, episode = null) {
  let best = null, ties = 0;
  for (const [node, depth] of places(group)) {
    if (!isTrained(group, node, depth) || (episode !== null && !node.episodes.includes(episode))) continue;
    const value = amount.of(node, depth, episode);
    if (value === null || sign * value <= 1e-12) continue;
    if (best === null || sign * (value - best.value) > 1e-7 * Math.abs(best.value)) {
      best = { node, depth, value };
      ties = 1;
    } else if (Math.abs(value - best.value) <= 1e-7 * Math.abs(best.value)) ties += 1;
  }
  return best && { ...best, ties };
}

/** The place of the tree where a token of an episode stands. */
export function placeOf(group, episode, depth) {
  return group.tree.find((node) => node.episodes.includes(episode) && depth >= node.start && depth < node.end) ?? null;
}

/** The text of an episode up to a depth. */
export function textOf(group, episode, from, to) {
  const offset = offsetOf(group, episode);
  return group.texts.slice(offset + from, offset + to).join("");
}

/** The known rewards of a group's episodes. */
export function rewardsOf(group) {
  return group.component === null ? [] : group.rewards[group.component].map((reward) => reward.value).filter((value) => value !== null);
}

/** The reward of an episode: {value, asked}. */
export function rewardOf(group, episode) {
  return group.component === null ? { value: null, asked: false } : group.rewards[group.component][episode];
}
