// @ts-check
/** Menus that open from a button, and the keys that work in the whole meeting. */

/**
 * A menu that opens above its button and closes by Escape, by a click elsewhere, or by its own buttons.
 * @param {HTMLElement} button
 * @param {HTMLElement} menu
 */
export function popover(button, menu) {
  const close = () => {
    if (menu.hidden) return;
    menu.hidden = true;
    button.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", outside, true);
  };
  const outside = (/** @type {Event} */ event) => {
    const target = /** @type {Node} */ (event.target);
    if (!menu.contains(target) && !button.contains(target)) close();
  };
  const items = () => /** @type {HTMLElement[]} */ ([...menu.querySelectorAll("button:not([hidden])")]);
  const open = () => {
    menu.hidden = false;
    button.setAttribute("aria-expanded", "true");
    document.addEventListener("pointerdown", outside, true);
    items()[0]?.focus();
  };
  button.onclick = () => (menu.hidden ? open() : close());
  menu.onkeydown = (event) => {
    const all = items();
    const now = all.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
      button.focus();
    } else if (event.key === "Tab") {
      close();
    } else if (step !== undefined) {
      event.preventDefault();
      all[(now + step + all.length) % all.length]?.focus();
    }
  };
  return { close, open };
}

/** Keys and the names of what they do. */
export const SHORTCUTS = /** @type {const} */ ({
  m: "microphone",
  v: "camera",
  h: "hand",
  r: "reactions",
  c: "chat",
  p: "people",
  g: "layout",
  f: "fullscreen",
  "?": "shortcuts",
});

/**
 * What a key does, null for nothing. Pure: no single key works while one writes, or with another key held.
 * @param {{key: string, ctrlKey: boolean, metaKey: boolean, altKey: boolean, repeat?: boolean}} event
 * @param {{isWriting: boolean, isDialogOpen: boolean, isOn: boolean}} state
 * @returns {string|null}
 */
export function shortcutOf({ key, ctrlKey, metaKey, altKey, repeat = false }, { isWriting, isDialogOpen, isOn }) {
  if (!isOn || isWriting || isDialogOpen || repeat || ctrlKey || metaKey || altKey) return null;
  return SHORTCUTS[/** @type {keyof typeof SHORTCUTS} */ (key.toLowerCase())] ?? null;
}

/** @param {EventTarget|null} target */
export const isWritingIn = (target) =>
  target instanceof HTMLElement && target.matches("input:not([type=checkbox], [type=radio]), textarea, select");
