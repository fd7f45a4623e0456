// What people and other programs have named, and what went wrong, as this page shows it.

import { element } from "./element.js";

const UNSEEN = /(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Co}\p{Zl}\p{Zp}]/gu; // joiners belong to words of some scripts and to emoji

/** With what would show nothing, or turn the direction of reading, written out: U+202E. */
export const plainName = (name) => name.replace(UNSEEN, (character) => `[U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}]`);

/** A name among other words: its direction of reading is its own. */
export const named = (name) => element("bdi", {}, plainName(name));

/** An error's message, and when to try again if it says so. */
export function reason(error) {
  const message = error.message || String(error);
  return error.retryAfterS ? `${message} Try again in ${Math.ceil(error.retryAfterS)} s.` : message;
}

/** A note of what went wrong, where it went wrong. */
export function failure(what, error, ...buttons) {
  const text = element("span", {}, element("strong", {}, what), ` ${plainName(reason(error))}`);
  return element("div", { className: "note", attributes: { "data-kind": "failed", role: "alert" } }, text, ...buttons);
}

export const button = (label, onclick, className = "quiet") => element("button", { type: "button", className, onclick }, label);
