// Text of models: what cannot be seen, or turns lines around, is shown by name.

const NAMES = new Map([
  [0x00ad, "SHY"], [0x061c, "ALM"], [0x180e, "MVS"], [0x200b, "ZWSP"], [0x200c, "ZWNJ"], [0x200d, "ZWJ"], [0x200e, "LRM"],
  [0x200f, "RLM"], [0x202a, "LRE"], [0x202b, "RLE"], [0x202c, "PDF"], [0x202d, "LRO"], [0x202e, "RLO"], [0x2028, "LS"],
  [0x2029, "PS"], [0x2060, "WJ"], [0x2066, "LRI"], [0x2067, "RLI"], [0x2068, "FSI"], [0x2069, "PDI"], [0xfeff, "BOM"],
  [0x2061, "U+2061"], [0x2062, "U+2062"], [0x2063, "U+2063"], [0x2064, "U+2064"], [0x3164, "U+3164"], [0x00a0, "NBSP"],
]);

/** What stands for a character that cannot be seen; null for one that can. */
export function nameOf(code) {
  if (code === 0x0a) return "\u23ce";
  if (code === 0x09) return "\u21e5";
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  if (NAMES.has(code)) return NAMES.get(code);
  const hidden = (code >= 0x80 && code < 0xa0) || (code >= 0xd800 && code < 0xe000) || (code >= 0xfe00 && code <= 0xfe0f)
    || (code >= 0xe0000 && code <= 0xe0fff) || (code >= 0xfff9 && code <= 0xfffb) || (code & 0xfffe) === 0xfffe;
  return hidden ? "U+" + code.toString(16).toUpperCase().padStart(4, "0") : null;
}

/** A text in parts: {text} as it is, or {glyph} for what cannot be seen, with {line} where a line ends. */
export function parts(text) {
  const found = [];
  let plain = "";
  for (const character of text) {
    const glyph = nameOf(character.codePointAt(0));
    if (glyph === null) {
      plain += character;
      continue;
    }
    if (plain) found.push({ text: plain });
    plain = "";
    found.push({ glyph, line: character === "\n" });
  }
  if (plain) found.push({ text: plain });
  return found;
}

/** A text as nodes; with `lines`, ends of lines end lines. */
export function nodes(text, lines = false) {
  return parts(text).map((part) => {
    if (part.text !== undefined) return document.createTextNode(part.text);
    if (part.line && lines) return document.createTextNode("\n");
    const glyph = document.createElement("i");
    glyph.className = "glyph";
    glyph.textContent = part.glyph;
    return glyph;
  });
}

/** A text in one line of plain characters, as for a tooltip. */
export function plain(text) {
  return parts(text).map((part) => part.text ?? `\u2039${part.glyph}\u203a`).join("");
}
