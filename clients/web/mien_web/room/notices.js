// @ts-check
/** What the page tells without being asked: toasts, the banner, and words for screen readers. */

import { byId, icon, make } from "./dom.js";
import { t } from "./words.js";

const TOAST_MS = 6000;
const MOST_TOASTS = 3;

/**
 * Words for screen readers only.
 * @param {string} text
 * @param {{now?: boolean}} [options] now: interrupt
 */
export function say(text, { now = false } = {}) {
  const region = byId(now ? "say-now" : "say-politely");
  region.textContent = "";
  // A region speaks when its text changes, so equal texts need a change in between.
  setTimeout(() => (region.textContent = text), 50);
}

/**
 * A short notice that goes away by itself; with a button it stays longer.
 * @param {string} text
 * @param {{label: string, run: () => void}} [action]
 */
export function toast(text, action) {
  const box = byId("toasts");
  const close = () => one.remove();
  const one = make(
    "div",
    { class: "toast" },
    make("p", {}, text),
    action === undefined
      ? null
      : make("button", { class: "secondary", type: "button", onclick: () => (action.run(), close()) }, action.label),
    make("button", { class: "quiet icon", type: "button", "aria-label": t("close"), onclick: close }, icon("close")),
  );
  box.append(one);
  while (box.childElementCount > MOST_TOASTS) box.firstElementChild?.remove();
  setTimeout(close, action === undefined ? TOAST_MS : TOAST_MS * 2);
  say(text);
}

/** @type {Map<string, {text: string, action?: {label: string, run: () => void}}>} */
const banners = new Map();

/**
 * A state that lasts: it stands above the stage until it is over. The newest one is shown.
 * @param {string} name
 * @param {{text: string, action?: {label: string, run: () => void}}|null} what null: it is over
 */
export function banner(name, what) {
  if (what === null && !banners.has(name)) return;
  banners.delete(name);
  if (what !== null) banners.set(name, what);
  const newest = [...banners.values()].at(-1);
  const box = byId("banner");
  box.hidden = newest === undefined;
  box.replaceChildren();
  if (newest === undefined) return;
  box.append(icon("warn"), make("p", {}, newest.text));
  const { action } = newest;
  if (action !== undefined) {
    box.append(make("button", { class: "secondary", type: "button", onclick: () => action.run() }, action.label));
  }
}

/**
 * Ask before something that cannot be undone.
 * @param {{title: string, text: string, yes: string}} what
 * @returns {Promise<boolean>}
 */
export function confirmed({ title, text, yes }) {
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = yes;
  return new Promise((resolve) => {
    const answer = (/** @type {boolean} */ value) => {
      /** @type {HTMLDialogElement} */ (dialog).close();
      resolve(value);
    };
    byId("confirm-yes").onclick = () => answer(true);
    byId("confirm-no").onclick = () => answer(false);
    dialog.oncancel = () => resolve(false);
    /** @type {HTMLDialogElement} */ (dialog).showModal();
    byId("confirm-no").focus();
  });
}
