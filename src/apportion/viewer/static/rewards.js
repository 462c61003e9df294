// How rewards are drawn: as right, partly right or wrong between 0 and 1, else by where they stand in their run.

/** The smallest and the largest known reward of a run and of what is drawn; null where all lie between 0 and 1. */
export function rangeOf(run, drawn = []) {
  const known = [...(run.rewards ?? []), ...drawn.filter((reward) => reward !== null)];
  const low = Math.min(...known), high = Math.max(...known);
  return known.length && (low < 0 || high > 1) ? { low, high } : null;
}

/** What a known reward is drawn as; number: its size says nothing about right and wrong. */
export function kindOf(reward, range) {
  return range !== null ? "number" : reward >= 1 ? "full" : reward > 0 ? "part" : "zero";
}

/** How much of a gauge a reward fills. */
export function shareOf(reward, range) {
  if (range === null) return reward;
  return range.high > range.low ? Math.max(0, Math.min(1, (reward - range.low) / (range.high - range.low))) : 1;
}
