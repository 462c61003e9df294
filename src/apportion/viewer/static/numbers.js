// Numbers as people read them.

/** A number with a sign, as credit is written: four decimals. */
export function signed(value, digits = 4) {
  if (value === null || value === undefined) return "\u2013";
  const text = Math.abs(value).toFixed(digits);
  if (value !== 0 && Number(text) === 0) return (value < 0 ? "\u2212" : "+") + Math.abs(value).toExponential(2);
  return (value < 0 ? "\u2212" : value > 0 ? "+" : "") + text;
}

/** A number short enough for a cell under a token. */
export function brief(value) {
  if (value === null || value === undefined) return "";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 100 ? size.toFixed(0) : size >= 10 ? size.toFixed(1) : size >= 0.095 ? size.toFixed(1) : size >= 0.005 ? size.toFixed(2) : "0";
  return Number(text) === 0 ? "0" : (value < 0 ? "\u2212" : "+") + text;
}

/** A number with three significant digits. */
export function short(value) {
  if (value === null || value === undefined) return "\u2013";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("-", "\u2212");
  return String(Number(value.toPrecision(3))).replace("-", "\u2212");
}

/** A share as a percentage. */
export function percent(value) {
  return value === null || value === undefined ? "\u2013" : `${(100 * value).toFixed(1)}%`;
}

/** A count with what is counted. */
export function many(count, one, more = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : more}`;
}

/** A reward as people write it. */
export function rewardText(value) {
  return String(Number(value.toPrecision(4))).replace("-", "\u2212");
}
