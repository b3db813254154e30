// @ts-check
/** How long to wait before the next try. Pure. */

/**
 * Exponential backoff with equal jitter, so that the clients of a restarted server do not all come back at once.
 * @param {number} failures consecutive failures before this one
 * @param {{firstMs: number, limitMs: number}} bounds the longest pause after the first failure, and after many
 * @param {() => number} [random] uniform in [0, 1)
 * @returns {number} milliseconds
 */
export function backoffMs(failures, { firstMs, limitMs }, random = Math.random) {
  const ceilingMs = Math.min(limitMs, firstMs * 2 ** failures);
  return ceilingMs / 2 + (ceilingMs / 2) * random();
}

/**
 * @param {string|null} value a Retry-After header (RFC 9110, section 10.2.3): seconds or an HTTP date
 * @param {number} nowMs Unix time
 * @returns {number|null} milliseconds from now, at least zero; null when absent or unreadable
 */
export function parseRetryAfterMs(value, nowMs) {
  if (!value) return null;
  if (/^\s*\d+\s*$/.test(value)) return Number(value) * 1000;
  const dateMs = Date.parse(value);
  return Number.isNaN(dateMs) ? null : Math.max(0, dateMs - nowMs);
}
