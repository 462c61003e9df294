// Answers to questions about runs: from the server that serves the page, or out of the report that is the page.

const kept = new Map();
let inside = null;

/** Opens what a report carries inside; null on a page that is served. */
export function open() {
  const held = document.getElementById("apportion-data");
  inside = held ? JSON.parse(held.textContent) : null;
  return inside;
}

/** Whether this is a report. */
export function offline() {
  return inside !== null;
}

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** The key of a question and its query, the same wherever it is made. */
export function key(question, query) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const parameters = new URLSearchParams(given.map(([name, value]) => [name, Array.isArray(value) ? value.join("\n") : String(value)]));
  parameters.sort();
  return `${question}?${parameters}`;
}

/** An answer; throws an Error with a sentence where there is none. */
export async function ask(question, query = {}) {
  const name = key(question, query);
  if (inside !== null) {
    const held = inside.answers[name];
    if (held === undefined) throw new Error("This report does not hold that; open the run with apportion view to see it.");
    if (!kept.has(name)) kept.set(name, await unpacked(held));
    return kept.get(name);
  }
  let response;
  try {
    response = await fetch(`/api/${name}`);
  } catch {
    throw new Error("The viewer no longer answers: start apportion view again.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || `the viewer answered ${response.status}`);
  return answer;
}

/** Two methods to compare first, of those that can credit a run; null where there are none. */
export async function pairOf(run) {
  const { defaults, methods } = await ask("methods", { run });
  const label = methods.find((m) => m.credit === "stored")?.label;
  const distinct = defaults.filter((spec) => label !== `as stored (${spec})`);
  const found = distinct.length >= 2 ? distinct : defaults;
  return found.length >= 2 ? found.slice(0, 2) : null;
}

/** The credit of a group under several methods, out of what a report holds or anew. */
export async function askGroup(run, part, group, credit) {
  if (inside === null) return ask("group", { run, part, group, credit });
  const held = await ask("group", { run, part, group });
  const credits = {};
  for (const spec of credit) credits[spec] = held.credits[spec] ?? { error: `This report does not hold credit under ${spec}.` };
  return { ...held, credits };
}

function reordered(result, credit) {
  const at = credit.map((spec) => result.specs.indexOf(spec)), pick = (list) => at.map((i) => list[i]);
  return { ...result, specs: credit, rms: pick(result.rms), earning: pick(result.earning),
    ...Object.fromEntries(["pearson", "spearman", "same_sign"].map((name) => [name, pick(result[name]).map(pick)])),
    tokens_apart: result.tokens_apart.map((one) => ({ ...one, advantages: pick(one.advantages) })) };
}

/** How far methods agree over a run; calls `progress` until it is known. */
export async function askAgreement(run, credit, progress, stopped) {
  if (inside !== null) {
    const order = inside.held.filter((spec) => credit.includes(spec));
    return reordered(await ask("agreement", { run, credit: order }), credit);
  }
  for (;;) {
    const state = await ask("agreement", { run, credit });
    if (state.error) throw new Error(state.error);
    if (state.result) return state.result;
    progress(state);
    await new Promise((resolve) => setTimeout(resolve, 300));
    if (stopped()) return null;
  }
}
