// Elements. Data enters the page as text nodes and attributes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

const SAFE = new Set(["class", "id", "title", "type", "value", "placeholder", "for", "role", "tabindex", "colspan", "open", "name",
  "checked", "selected", "disabled", "min", "max", "step", "label", "href", "hidden"]);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (node.namespaceURI === SVG || name.startsWith("data-") || name.startsWith("aria-")) node.setAttribute(name, String(value));
    else if (name === "href" && !String(value).startsWith("#")) throw new Error("links lead within the page only");
    else if (SAFE.has(name)) node.setAttribute(name, value === true ? "" : String(value));
    else throw new Error(`no attribute ${name}`);
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** An HTML element. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Replaces what is in an element. */
export function put(node, ...children) {
  node.replaceChildren();
  return fill(node, {}, children);
}

/** A notice that stands where there is nothing to show. */
export function empty(title, text) {
  return el("div", { class: "empty" }, el("strong", {}, title), text ? el("p", {}, text) : null);
}
