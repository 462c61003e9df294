// The groups of every run, fetched slice by slice and kept in columns of the page.

import { ask, offline } from "./data.js";

const listings = new Map();

/** The groups of a run that are known so far. */
export function known(run) {
  if (!listings.has(run)) listings.set(run, { edition: null, rows: [], disagreement: new Map(), complaints: [], listed: 0, parts: 0, rewards: null, busy: null });
  return listings.get(run);
}

/** Fetches what appeared since; resolves to whether anything did. */
export function refresh(run) {
  const listing = known(run);
  listing.busy ??= fetchNew(run, listing).finally(() => { listing.busy = null; });
  return listing.busy;
}

async function fetchNew(run, listing) {
  if (offline() && listing.edition !== null) return false;
  const before = [listing.rows.length, listing.listed, listing.edition, listing.complaints.length].join();
  for (;;) {
    const answer = await ask("groups", { run, from: listing.rows.length || undefined });
    if (listing.edition !== null && answer.edition !== listing.edition) {
      listing.rows = [];
      listing.edition = answer.edition;
      continue;
    }
    listing.edition = answer.edition;
    listing.rows.push(...answer.rows.map(asObject));
    Object.assign(listing, { complaints: answer.complaints, listed: answer.listed, parts: answer.parts, rewards: answer.rewards });
    if (listing.rows.length >= answer.count || !answer.rows.length) break;
  }
  return before !== [listing.rows.length, listing.listed, listing.edition, listing.complaints.length].join();
}

let columns = [];

/** Says which columns rows have. */
export function setColumns(names) {
  columns = names;
}

function asObject(row) {
  return Object.fromEntries(columns.map((name, i) => [name, row[i]]));
}

/** How far methods are apart about a group; null where that was not worked out. */
export function disagreementOf(listing, row) {
  return listing.disagreement.get(`${row.part}/${row.group}`) ?? null;
}

/** Keeps how far methods are apart about groups. */
export function keepDisagreement(run, byGroup) {
  known(run).disagreement = new Map(byGroup.map(([part, group, value]) => [`${part}/${group}`, value]));
}

const NUMBERS = new Set(["part", "group", "mean", "length", "entropy", "credit", "disagreement", "responses"]);

/** The rows that pass filters, sorted; missing values last. */
export function chosen(listing, { text, task, health, from, to, sort, down, low, high }) {
  const words = (text || "").toLowerCase();
  const kept = listing.rows.filter((row) =>
    (!words || `${row.prompt} ${row.name ?? row.group} ${row.task ?? ""}`.toLowerCase().includes(words))
    && (!task || row.task === task)
    && (!health || (health === "dead" ? row.health === "right" || row.health === "wrong" : row.health === health))
    && (!from || row.part >= Number(from)) && (!to || row.part <= Number(to))
    && (!low || (row.mean !== null && row.mean >= Number(low))) && (!high || (row.mean !== null && row.mean <= Number(high))));
  if (!sort) return kept;
  const value = sort === "disagreement" ? (row) => disagreementOf(listing, row) : (row) => row[sort];
  const sign = down ? -1 : 1;
  const compare = NUMBERS.has(sort) ? (a, b) => a - b : (a, b) => String(a).localeCompare(String(b));
  return kept.map((row, i) => ({ row, i, v: value(row) })).sort((a, b) => {
    if (a.v === null || b.v === null) return (a.v === null) - (b.v === null) || a.i - b.i;
    return sign * compare(a.v, b.v) || a.i - b.i;
  }).map((one) => one.row);
}
