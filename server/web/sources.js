// The passages an answer rests on: numbered chips, and the dialog that shows one whole.

import { render } from "./markdown.js";
import { element } from "./element.js";

const baseName = (filename) => filename.split("/").at(-1);

export function sourceChips(citations, open) {
  const chips = citations.map((citation) =>
    element(
      "li",
      {},
      element(
        "button",
        { type: "button", className: "chip", title: citation.quote ?? "", onclick: () => open(citation) },
        element("span", { className: "hidden" }, "Source "),
        element("span", { className: "chip-number" }, String(citation.index)),
        " ",
        element("span", { className: "chip-name" }, baseName(citation.filename)),
      ),
    ),
  );
  return element("ol", { className: "sources", attributes: { "aria-label": "Sources" } }, ...chips);
}

/** "[2]" in a finished answer becomes a button, where there is a source 2; of two, the later one. Links and code stay as they are. */
export function linkMarkers(answer, citations, open) {
  const byIndex = new Map(citations.map((citation) => [String(citation.index), citation]));
  const walker = document.createTreeWalker(answer, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) if (!walker.currentNode.parentElement.closest("a[href], code, pre")) texts.push(walker.currentNode);
  for (const text of texts) {
    const parts = text.data.split(/\[(\d{1,4})\]([.,;:!?)]*)/); // text, number, punctuation, text, …
    if (parts.length === 1) continue;
    const nodes = [parts[0]];
    for (let at = 1; at < parts.length; at += 3) {
      const [number, punctuation, rest] = parts.slice(at, at + 3);
      const citation = byIndex.get(number);
      // A line does not break between a marker and the full stop after it.
      nodes.push(citation ? element("span", { className: "glued" }, marker(citation, open), punctuation) : `[${number}]${punctuation}`, rest);
    }
    text.replaceWith(...nodes);
  }
}

function marker(citation, open) {
  return element(
    "button",
    { type: "button", className: "marker", title: citation.filename, onclick: () => open(citation) },
    element("span", { className: "hidden" }, "Source "),
    String(citation.index),
  );
}

export class PassageDialog {
  #api;
  #dialog = document.getElementById("passage");
  #title = document.getElementById("passage-title");
  #trail = document.getElementById("passage-trail");
  #origin = document.getElementById("passage-origin");
  #text = document.getElementById("passage-text");
  #shown = 0; // counts openings: an answer that comes late belongs to an earlier one

  constructor(api) {
    this.#api = api;
    document.getElementById("passage-close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // the backdrop
    });
    this.#dialog.addEventListener("close", () => this.#shown++);
  }

  open = async (citation) => {
    const opening = ++this.#shown;
    this.#fill(citation, { title: baseName(citation.filename), heading_path: [] });
    this.#text.replaceChildren(element("p", { className: "faint" }, "Fetching the passage…"));
    this.#dialog.showModal();
    this.#title.focus();
    try {
      const passage = await this.#api.json(`/v1/passages/${encodeURIComponent(citation.chunk_id)}`);
      if (opening !== this.#shown) return;
      this.#fill(citation, passage);
      this.#text.replaceChildren(passageBody(citation.filename, passage.text));
    } catch (error) {
      if (opening !== this.#shown) return;
      const quote = citation.quote ? element("blockquote", {}, citation.quote) : null;
      this.#text.replaceChildren(element("p", { className: "refused" }, `The passage could not be fetched: ${error.message}`));
      if (quote) this.#text.append(quote);
    }
    this.#text.scrollTop = 0;
  };

  #fill(citation, { title, heading_path: path }) {
    const headings = path ?? [];
    this.#title.textContent = headings.at(-1) ?? title ?? citation.filename;
    this.#trail.textContent = [...new Set([title, ...headings.slice(0, -1)])].filter((step) => step && step !== this.#title.textContent).join(" › ");
    const score = typeof citation.score === "number" ? `, score ${citation.score.toFixed(2)}` : "";
    this.#origin.textContent = `Source ${citation.index}: ${citation.filename}${score}`;
  }
}

/** Markdown reads better rendered; any other text stays exactly as the engine was given it. */
function passageBody(filename, text) {
  if (/\.(md|markdown|mdx)$/i.test(filename)) return render(text);
  return element("div", { className: "plain" }, text);
}
