// @ts-check
/** The page's words: the language, and texts of the message files with their values. */

/** @type {Record<string, () => Promise<{default: Record<string, string>}>>} */
const FILES = { en: () => import("./messages/en.js"), zh: () => import("./messages/zh.js") };
const KEY = "mien-language";

/** @type {Record<string, string>} */
let messages = {};
let current = "en";

/**
 * The best of our languages for what a browser prefers. Pure.
 * @param {readonly string[]} preferred such as ["zh-TW", "en"]
 * @param {string|null} chosen what the person has chosen before
 */
export function languageFor(preferred, chosen = null) {
  if (chosen !== null && chosen in FILES) return chosen;
  return preferred.map((one) => one.toLowerCase().split("-")[0]).find((one) => one in FILES) ?? "en";
}

/**
 * A text with its values. Pure. With a `count` of 1 the key `KEY.one` is preferred.
 * @param {Record<string, string>} from
 * @param {string} key
 * @param {Record<string, string|number>} values
 */
export function filled(from, key, values = {}) {
  const text = (values.count === 1 ? from[`${key}.one`] : undefined) ?? from[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/**
 * @param {string} key
 * @param {Record<string, string|number>} [values]
 */
export const t = (key, values) => filled(messages, key, values);

/** @param {string} key */
export const has = (key) => key in messages;

export const language = () => current;

/** Load the words that fit this browser. */
export async function loadWords() {
  await use(languageFor(navigator.languages, remembered()));
}

/** Change to the other language, and remember that. */
export async function switchLanguage() {
  const next = current === "en" ? "zh" : "en";
  await use(next);
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // The browser may forbid storage.
  }
}

/**
 * Put the words into every element that names one: `data-t` for its text, `data-t-label`, `-title`, `-placeholder`.
 * @param {ParentNode} [root]
 */
export function applyWords(root = document) {
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.getAttribute("data-t") ?? "");
  for (const [attribute, target] of [
    ["data-t-label", "aria-label"],
    ["data-t-title", "title"],
    ["data-t-placeholder", "placeholder"],
  ]) {
    for (const element of root.querySelectorAll(`[${attribute}]`)) {
      element.setAttribute(target, t(element.getAttribute(attribute) ?? ""));
    }
  }
}

/** @param {string} next */
async function use(next) {
  messages = (await FILES[next]()).default;
  current = next;
  document.documentElement.lang = next === "zh" ? "zh-CN" : next;
}

function remembered() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}
