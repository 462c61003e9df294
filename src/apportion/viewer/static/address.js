// The address of what is on the page: everything chosen stands after the #, so that a link opens the same view.

/** Reads `#/page?a=1&credit=x&credit=y`. */
export function read(hash = location.hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const parameters = new URLSearchParams(query);
  const found = { page: path || "run", credit: parameters.getAll("credit") };
  for (const [name, value] of parameters) if (name !== "credit") found[name] = value;
  return found;
}

/** Writes an address. */
export function write({ page, ...rest }) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(rest)) {
    if (value === null || value === undefined || value === "" || value === false) continue;
    for (const one of Array.isArray(value) ? value : [value]) parameters.append(name, String(one));
  }
  const query = parameters.toString();
  return `#/${page}${query ? `?${query}` : ""}`;
}

/** The address now with some of it changed. */
export function changed(some) {
  return write({ ...read(), ...some });
}

/** Changes the address without a new entry in the history, and without drawing the page anew. */
export function note(some) {
  history.replaceState(null, "", changed(some));
}
