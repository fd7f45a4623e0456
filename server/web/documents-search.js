// The search box: what a question finds in the chosen store, with the scores it was found by.

import { copyButton } from "./clipboard.js";
import { highlighted, stemsOf } from "./documents-highlight.js";
import { button, failure, named, plainName } from "./documents-text.js";
import { element } from "./element.js";
import { duration, plural } from "./figures.js";

const LONG_CHARACTERS = 480;
const INTRODUCTION = "See which passages a question finds, and by which scores. The chat page answers from the same passages.";

export class SearchPanel {
  #client;
  #say;
  #store = null;
  #searching = null; // AbortController
  #form = document.getElementById("search");
  #query = document.getElementById("query");
  #most = document.getElementById("most");
  #go = document.getElementById("search-go");
  #summary = document.getElementById("search-summary");
  #results = document.getElementById("results");
  #problem = document.getElementById("search-problem");

  constructor({ client, say }) {
    this.#client = client;
    this.#say = say;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search();
    });
    this.#most.addEventListener("change", () => this.#results.hasChildNodes() && this.#search());
  }

  /** Another store: what was found in the one before goes away. */
  open(store) {
    this.#store = store;
    this.#searching?.abort();
    this.#busy(false);
    this.#clear(INTRODUCTION);
  }

  #clear(summary) {
    this.#problem.replaceChildren();
    this.#results.replaceChildren();
    this.#summary.textContent = summary;
  }

  async #search() {
    const query = this.#query.value.trim();
    if (query === "" || !this.#store) {
      this.#query.focus();
      return;
    }
    this.#searching?.abort();
    const searching = (this.#searching = new AbortController());
    this.#busy(true);
    try {
      const found = await this.#client.search(this.#store.id, query, Number(this.#most.value), searching.signal);
      if (!searching.signal.aborted) this.#show(query, found);
    } catch (error) {
      if (searching.signal.aborted) return;
      this.#clear("");
      this.#problem.append(failure("The search failed.", error, button("Try again", () => this.#search())));
    } finally {
      if (searching === this.#searching) this.#busy(false);
    }
  }

  #busy(busy) {
    this.#results.setAttribute("aria-busy", String(busy));
    this.#go.textContent = busy ? "Searching…" : "Search";
  }

  #show(query, { data, firstword }) {
    this.#clear(summaryOf(data, firstword?.timing));
    this.#say(data.length === 0 ? "Nothing was found." : `${plural(data.length, "passage")} found.`);
    const stems = stemsOf(query);
    const bestLexical = Math.max(...data.map((result) => result.firstword?.lexical ?? 0), 0);
    this.#results.append(...data.map((result) => this.#hit(result, stems, bestLexical)));
  }

  #hit({ filename, score, content, attributes, firstword: ours = {} }, stems, bestLexical) {
    const text = content.map((part) => part.text).join("\n\n");
    const where = [ours.page ? `Page ${ours.page}` : "", ...(ours.heading_path ?? [])].filter(Boolean);
    const tagged = Object.entries(attributes ?? {}).map(([name, value]) => `${name}: ${value}`);
    const scores = element("dl", { className: "scores" });
    scores.append(...scoreOf("Score", score, 1, "What passages are ranked by"));
    scores.append(...scoreOf("Meaning", ours.dense, 1, "Cosine similarity of the vectors (dense)"));
    scores.append(...scoreOf("Words", ours.lexical, bestLexical, "BM25 (lexical); the longest bar is the best of this search"));
    const body = element("p", { className: "hit-text" }, ...highlighted(text, stems));
    const actions = element("div", { className: "file-actions" });
    if (text.length > LONG_CHARACTERS) actions.append(unfold(body));
    if (ours.chunk_id) actions.append(copyButton("Copy passage id", () => ours.chunk_id, this.#say));
    return element(
      "li",
      { className: "hit" },
      element("h3", {}, named(filename)),
      where.length > 0 ? element("p", { className: "trail" }, plainName(where.join(" › "))) : null,
      tagged.length > 0 ? element("p", { className: "trail" }, plainName(tagged.join(" · "))) : null,
      scores,
      body,
      actions,
    );
  }
}

function summaryOf(data, timing) {
  if (data.length === 0) return "Nothing was found. Try other words, or another store; files that are in progress are found when they are done.";
  const phases = ["embed", "search", "rerank"].filter((phase) => timing?.[phase] > 0).map((phase) => `${phase} ${duration(timing[phase])}`);
  return [plural(data.length, "passage"), ...phases].join(" · ");
}

/** Nothing where this passage has no such score. */
function scoreOf(name, value, whole, title) {
  if (typeof value !== "number") return [];
  const fill = element("span", { className: "score-fill" });
  fill.style.width = `${100 * Math.min(1, Math.max(0, whole > 0 ? value / whole : 0))}%`;
  const bar = element("span", { className: "score-bar", attributes: { "aria-hidden": "true" } }, fill);
  return [element("dt", { title }, name), element("dd", {}, bar, element("span", { className: "score-figure" }, value.toFixed(value >= 10 ? 1 : 2)))];
}

function unfold(body) {
  body.classList.add("folded");
  const toggle = button("Show all of it", () => {
    const folded = body.classList.toggle("folded");
    toggle.textContent = folded ? "Show all of it" : "Show less";
    toggle.setAttribute("aria-expanded", String(!folded));
  });
  toggle.setAttribute("aria-expanded", "false");
  return toggle;
}
