// @ts-check
/** Small words for making elements. Texts always go in as text, never as HTML. */

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return /** @type {T} */ (found);
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string|boolean|null|((event: any) => void)>} [attributes] `onclick` and the like: listeners;
 *   null and false: none
 * @param {...(Node|string|null)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * An icon of the page's sprite; it is decoration.
 * @param {string} name
 * @param {string} [className]
 */
export function icon(name, className = "") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");
  if (className !== "") svg.setAttribute("class", className);
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/**
 * A button's picture and words.
 * @param {HTMLElement} button
 * @param {string} picture
 * @param {string} label
 * @param {{pressed?: boolean, className?: string, shortcut?: string}} [state]
 */
export function dress(button, picture, label, { pressed, className = "", shortcut } = {}) {
  if (button.dataset.icon !== picture) {
    button.dataset.icon = picture;
    button.querySelector("svg")?.remove();
    button.prepend(icon(picture));
  }
  button.setAttribute("aria-label", label);
  button.title = shortcut === undefined ? label : `${label} (${shortcut.toUpperCase()})`;
  if (pressed !== undefined) button.setAttribute("aria-pressed", String(pressed));
  button.classList.toggle("off", className === "off");
  button.classList.toggle("on", className === "on");
}

/** Up to two letters that stand for a name. Pure. @param {string} name */
export function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const letters = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return letters.map((word) => [...word][0]).join("").toLocaleUpperCase();
}
