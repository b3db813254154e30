// @ts-check
/** Tells when the device's network has changed: then connections may be dead without a sign. */

/**
 * @param {() => void} onChange
 * @returns {() => void} stops telling
 */
export function onNetworkChange(onChange) {
  /** Chromium only. Its "change" also tells of new estimates of the speed. @type {any} */
  const information = /** @type {any} */ (globalThis.navigator)?.connection;
  let type = information?.type;
  const compare = () => {
    if (information.type === type || !navigator.onLine) return;
    type = information.type;
    onChange();
  };
  globalThis.addEventListener?.("online", onChange);
  information?.addEventListener("change", compare);
  return () => {
    globalThis.removeEventListener?.("online", onChange);
    information?.removeEventListener("change", compare);
  };
}
