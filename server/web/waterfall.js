// The time to the first word, as a figure and as the phases it is made of.

import { element } from "./element.js";
import { count, duration } from "./figures.js";

// In the order of a turn. The work is the gateway's, the retrieval's or the engine's.
const PHASES = [
  ["admit", "admit", "gateway"],
  ["recall", "recall", "gateway"],
  ["embed", "embed", "retrieval"],
  ["search", "search", "retrieval"],
  ["rerank", "rerank", "retrieval"],
  ["assemble", "assemble", "gateway"],
  ["engine_queue", "engine queue", "engine"],
  ["prefill", "prefill", "engine"],
  ["first_byte", "first byte", "gateway"],
];
const THINNEST_PX = 2; // as .span has it: a bar that short still shows, and stays inside its lane
const WORTH_SAYING_MS = 1; // a gap between the sum of the phases and TTFT that is shown as a phase of its own

/** The phases of a timing with where they begin; a TTFT they do not explain is listed too. */
export function phasesOf(timing) {
  let startMs = 0;
  const phases = [];
  for (const [key, name, room] of PHASES) {
    const ms = timing[key];
    if (typeof ms !== "number") continue;
    phases.push({ name, room, startMs, ms });
    startMs += ms;
  }
  const missingMs = timing.ttft - startMs;
  if (phases.length > 0 && missingMs > WORTH_SAYING_MS) phases.push({ name: "not accounted for", room: "unknown", startMs, ms: missingMs });
  return phases;
}

/** The figure alone: while the first word is awaited, and when the server's timing never came. */
export function ttftFigure(ms, { waiting = false } = {}) {
  return element(
    "p",
    { className: "ttft" },
    element("span", { className: "ttft-label" }, waiting ? "waiting for the first word" : "first word after"),
    " ",
    element("strong", { className: "ttft-value" }, waiting ? `${(ms / 1000).toFixed(1)} s` : duration(ms)),
  );
}

export function waterfall(timing, turnNumber) {
  const phases = phasesOf(timing);
  const totalMs = Math.max(timing.ttft, ...phases.map((phase) => phase.startMs + phase.ms), Number.MIN_VALUE);
  const share = (ms) => `${((100 * ms) / totalMs).toFixed(3)}%`;
  const rows = phases.map((phase) => {
    const bar = element("span", { className: "span", attributes: { "data-room": phase.room } });
    bar.style.left = `min(${share(phase.startMs)}, 100% - ${THINNEST_PX}px)`;
    bar.style.width = share(phase.ms);
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, phase.name),
      element("td", { className: "track", attributes: { "aria-hidden": "true" } }, element("span", { className: "lane" }, bar)),
      element("td", { className: "figure" }, duration(phase.ms)),
    );
  });
  const head = element(
    "thead",
    { className: "hidden" },
    element(
      "tr",
      {},
      element("th", { scope: "col" }, "Phase"),
      element("td", { attributes: { "aria-hidden": "true" } }),
      element("th", { scope: "col" }, "Time"),
    ),
  );
  const caption = element("caption", { className: "hidden" }, `Phases of the ${duration(timing.ttft)} to the first word of answer ${turnNumber}`);
  return element("table", { className: "waterfall" }, caption, head, element("tbody", {}, ...rows));
}

/** What this browser measured: its own time to first token, and the pace after it. */
export function browserLines(turn) {
  const lines = [];
  if (turn.firstTextMs !== null && turn.timing) lines.push(`${duration(turn.firstTextMs)} by this browser’s clock`);
  const tokens = turn.usage?.completion_tokens;
  if (tokens) {
    const decodeS = (turn.lastTextMs - turn.firstTextMs) / 1000;
    const pace = tokens > 1 && decodeS > 0.05 ? `, ${((tokens - 1) / decodeS).toFixed(0)} tokens/s` : "";
    lines.push(`${count(tokens)} answer ${tokens === 1 ? "token" : "tokens"}${pace}`);
  }
  return lines;
}
