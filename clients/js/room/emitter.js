// @ts-check
/** Events with typed arguments. A listener that throws does not keep the others from hearing the event. */

/**
 * @template {Record<string, any[]>} Events the arguments of each event, by its name
 */
export class Emitter {
  /** @type {Map<keyof Events, Set<(...given: any[]) => void>>} */
  #listeners = new Map();

  /**
   * Call `listener` at each such event.
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {(...given: Events[Name]) => void} listener
   * @returns {this}
   */
  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return this;
  }

  /**
   * Call `listener` at the next such event only.
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {(...given: Events[Name]) => void} listener
   * @returns {this}
   */
  once(name, listener) {
    const first = (/** @type {Events[Name]} */ ...given) => {
      this.off(name, first);
      listener(...given);
    };
    return this.on(name, first);
  }

  /**
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {(...given: Events[Name]) => void} listener
   * @returns {this}
   */
  off(name, listener) {
    this.#listeners.get(name)?.delete(listener);
    return this;
  }

  /**
   * @internal
   * @template {keyof Events} Name
   * @param {Name} name
   * @param {Events[Name]} given
   */
  emit(name, ...given) {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(...given);
      } catch (error) {
        console.error(`a listener of "${String(name)}" failed`, error);
      }
    }
  }
}
