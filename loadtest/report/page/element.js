"use strict";
// Elements and numbers as text. A string becomes a text node here, whoever chose it: nothing is ever parsed as HTML.

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const NOTHING = "–";

function grouped(value, digits) {
  return value.toLocaleString("en-GB", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** Three digits or so, which is what a run can tell. */
function number(value) {
  if (value === null || value === undefined) return NOTHING;
  if (Number.isInteger(value) || Math.abs(value) >= 100) return grouped(value, 0);
  if (Math.abs(value) >= 10) return grouped(value, 1);
  if (Math.abs(value) >= 0.1 || value === 0) return grouped(value, 2);
  return String(Number(value.toPrecision(2)));
}

function milliseconds(value) {
  if (value === null || value === undefined) return NOTHING;
  return Math.abs(value) >= 100_000 ? `${number(value / 1_000)}\u00a0s` : `${number(value)}\u00a0ms`;
}

function percent(share) {
  if (share === null || share === undefined) return NOTHING;
  const value = share * 100;
  if (value === 0 || value === 100) return `${value}\u00a0%`;
  if (value > 99 && value < 100) return `${Math.min(99.99, value).toFixed(2)}\u00a0%`;
  return `${value >= 10 ? value.toFixed(1) : Number(value.toPrecision(2))}\u00a0%`;
}

function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

function loadOf(stage) {
  if (stage.rate_per_s !== null) return `${number(stage.rate_per_s)} conversations/s`;
  if (stage.loop === "closed" && stage.concurrency !== null) return `${plural(stage.concurrency, "conversation")} at a time`;
  return stage.loop === "closed" ? "closed loop" : "open loop";
}
