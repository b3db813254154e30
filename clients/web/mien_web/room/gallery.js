// @ts-check
/** The choice of an avatar: bundled people, one's own pictures, and the upload of one. */

import { byId, icon, make } from "./dom.js";
import { deleteAvatar, faceOf, isUploaded, listAvatars, uploadAvatar } from "./gateway.js";
import { toast } from "./notices.js";
import { uploadTrouble } from "./trouble.js";
import { has, t } from "./words.js";

/**
 * @typedef {object} GalleryOptions
 * @property {string} token
 * @property {string|null} chosen the avatar that is in use
 * @property {(avatarId: string) => Promise<void>} choose use this one; rejects with why not
 */

/** A row of avatars of which one is chosen. */
export class Gallery {
  #box;
  #options;
  /** @type {{avatar_id: string, name: string|null}[]} */
  #avatars = [];
  #busy = false;

  /** @param {HTMLElement} box @param {GalleryOptions} options */
  constructor(box, options) {
    this.#box = box;
    this.#options = options;
    box.setAttribute("role", "radiogroup");
    box.setAttribute("aria-label", t("avatar"));
    box.onkeydown = (event) => this.#onKey(event);
  }

  get chosen() {
    return this.#options.chosen;
  }

  /** Ask for the list and show it. */
  async load() {
    try {
      this.#avatars = await listAvatars(this.#options.token);
    } catch (error) {
      this.#note(t("avatar.failed", { detail: error instanceof Error ? error.message : "" }));
    }
    this.render();
  }

  render() {
    const items = this.#avatars.map((one) => this.#item(one));
    this.#box.setAttribute("aria-label", t("avatar"));
    this.#box.replaceChildren(...items, make("div", { class: "gallery-item" }, this.#adder()));
    if (this.#box.querySelector('[aria-checked="true"]') === null) {
      this.#box.querySelector('[role="radio"]')?.setAttribute("tabindex", "0");
    }
  }

  /** @param {{avatar_id: string, name: string|null}} one */
  #item({ avatar_id: id, name }) {
    const label = name ?? t("avatar.own");
    const picture = make("img", { alt: "", width: "80", height: "80" });
    void faceOf(id, this.#options.token, name !== null).then((url) => url !== null && (picture.src = url));
    const isChosen = id === this.#options.chosen;
    const pick = make(
      "button",
      {
        class: "gallery-pick",
        type: "button",
        role: "radio",
        "aria-checked": String(isChosen),
        "aria-label": label,
        title: label,
        tabindex: isChosen ? "0" : "-1",
        "data-avatar": id,
        onclick: () => void this.choose(id),
      },
      picture,
    );
    const remove = make(
      "button",
      {
        class: "gallery-delete",
        type: "button",
        "aria-label": t("avatar.delete"),
        title: t("avatar.delete"),
        onclick: () => void this.#remove(id),
      },
      icon("bin"),
    );
    return make("div", { class: "gallery-item" }, pick, isUploaded(id) && name === null ? remove : null);
  }

  #adder() {
    const open = () => openUpload(this.#options.token, (id) => this.#uploaded(id));
    return make(
      "button",
      { class: "gallery-pick add", type: "button", "aria-label": t("avatar.add"), title: t("avatar.add"), onclick: open },
      icon("plus"),
    );
  }

  /** @param {string} id */
  async choose(id) {
    if (this.#busy || id === this.#options.chosen) return;
    const before = this.#options.chosen;
    this.#busy = true;
    this.#options.chosen = id;
    this.#note("");
    this.render();
    this.#focus(id);
    try {
      await this.#options.choose(id);
    } catch (error) {
      this.#options.chosen = before;
      this.render();
      this.#note(t("avatar.failed", { detail: error instanceof Error ? error.message : "" }));
    } finally {
      this.#busy = false;
    }
  }

  /** @param {string} id */
  async #uploaded(id) {
    await this.load();
    await this.choose(id);
  }

  /** @param {string} id */
  async #remove(id) {
    try {
      if (id === this.#options.chosen) await this.choose("mien");
      await deleteAvatar(this.#options.token, id);
    } catch (error) {
      this.#note(t("avatar.failed", { detail: error instanceof Error ? error.message : "" }));
    }
    await this.load();
  }

  /**
   * Arrow keys move among the avatars, as in a group of radio buttons.
   * @param {KeyboardEvent} event
   */
  #onKey(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step === undefined || this.#avatars.length === 0) return;
    event.preventDefault();
    const ids = this.#avatars.map((one) => one.avatar_id);
    const now = ids.indexOf(this.#options.chosen ?? "");
    void this.choose(ids[(now + step + ids.length) % ids.length]);
  }

  /** @param {string} id */
  #focus(id) {
    /** @type {HTMLElement|null} */ (this.#box.querySelector(`[data-avatar="${CSS.escape(id)}"]`))?.focus();
  }

  /** @param {string} text */
  #note(text) {
    const note = this.#box.parentElement?.querySelector('[role="status"]');
    if (note == null) {
      if (text !== "") toast(text);
      return;
    }
    note.textContent = text;
    note.toggleAttribute("hidden", text === "");
  }
}

/**
 * Ask for a picture and whether the person in it agreed, and send it.
 * @param {string} token
 * @param {(avatarId: string) => Promise<void>} use
 */
function openUpload(token, use) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("upload"));
  const file = /** @type {HTMLInputElement} */ (byId("upload-file"));
  const name = /** @type {HTMLInputElement} */ (byId("consent-name"));
  const send = /** @type {HTMLButtonElement} */ (byId("upload-send"));
  const form = /** @type {HTMLFormElement} */ (byId("upload-form"));
  const kind = () => /** @type {string} */ (new FormData(form).get("consent") ?? "");
  const fail = (/** @type {string} */ text) => {
    byId("upload-error").textContent = text;
    byId("upload-error").hidden = text === "";
  };
  const check = () => {
    byId("upload-name").textContent = file.files?.[0]?.name ?? t("upload.choose");
    byId("consent-name-field").hidden = kind() !== "granted";
    send.disabled = file.files?.length !== 1 || kind() === "" || (kind() === "granted" && name.value.trim() === "");
  };
  form.reset();
  fail("");
  check();
  form.oninput = check;
  file.onchange = () => (fail(""), check());
  const drop = byId("upload-drop");
  drop.ondragover = (event) => (event.preventDefault(), drop.classList.add("over"));
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer?.files.length) file.files = event.dataTransfer.files;
    check();
  };
  byId("upload-cancel").onclick = () => dialog.close();
  form.onsubmit = async (event) => {
    event.preventDefault();
    const picture = file.files?.[0];
    if (picture === undefined || send.disabled) return;
    send.disabled = true;
    send.textContent = t("upload.busy");
    try {
      const consent = { kind: /** @type {"self"} */ (kind()), name: name.value.trim() };
      const { avatar_id: id } = await uploadAvatar(token, picture, consent);
      dialog.close();
      await use(id);
    } catch (error) {
      const { key, detail } = uploadTrouble(error, has);
      fail(t(key, { detail }));
    } finally {
      send.textContent = t("upload.send");
      check();
    }
  };
  dialog.showModal();
}
