// What a screen reader is told: news as it comes, many files as one sentence.

import { plainName } from "./documents-text.js";
import { plural } from "./figures.js";

const GATHERED_MS = 1000;
const SAID_FOR_MS = 8000;

export class Announcer {
  #node = document.getElementById("status");
  #ended = [];
  #gathering = 0;
  #forgetting = 0;

  /** What is still being gathered goes ahead of it, and so does not take its place a moment later. */
  say = (text) => {
    this.#tell([this.#gathered(), text].filter(Boolean).join(" "));
  };

  /** A file is done, or has failed; `view` as in its row. */
  ended(view) {
    this.#ended.push(view);
    this.#gathering ||= setTimeout(() => this.#tell(this.#gathered()), GATHERED_MS);
  }

  #tell(text) {
    this.#node.textContent = text;
    clearTimeout(this.#forgetting);
    this.#forgetting = setTimeout(() => (this.#node.textContent = ""), SAID_FOR_MS);
  }

  #gathered() {
    const ended = this.#ended;
    this.#ended = [];
    clearTimeout(this.#gathering);
    this.#gathering = 0;
    if (ended.length === 0) return "";
    if (ended.length === 1) {
      const [{ name, label, meta, note }] = ended;
      return `${plainName(name)}: ${label}. ${plainName(note || meta)}`.replace(/[^.!?]$/, "$&.");
    }
    const nFailed = ended.filter(({ state }) => state === "failed").length;
    const parts = [`${plural(ended.length - nFailed, "file")} done`];
    if (nFailed > 0) parts.push(`${nFailed} failed`);
    return `${parts.join(", ")}.`;
  }
}
