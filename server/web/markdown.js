// Markdown from a model → safe nodes.
//
// A model's text is untrusted: a document it read may have written it. Three layers stand between it and the page: the parser knows no
// raw HTML and no images (an image would carry the conversation to whoever serves it), DOMPurify keeps only the tags and attributes
// listed here, and the server's content security policy runs no script that is not its own.
//
// Divergences from GitHub's Markdown: raw HTML is shown as text (but for <br>); an image becomes its alternative text; headings sit two
// levels deeper, below the page's own; only http, https and mailto links stay links; "[3]: text" is a line about source 3 and defines a link
// only with an address that would stay one.

import { Marked } from "./vendor/marked.esm.js";
import createDOMPurify from "./vendor/purify.es.mjs";

const TAGS = (
  "p br hr h1 h2 h3 h4 h5 h6 strong em del code pre blockquote ul ol li table thead tbody tr th td a"
).split(" ");

// What comes next can still change the last block (a list goes on, a line becomes a heading), and blank lines count as blocks.
const OPEN_BLOCKS = 4;

const NUMBERED_LINE = /^ {0,3}\[\d{1,4}\]:(?!\s*<?(?:https?:\/\/|mailto:))/i;

const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  tokenizer: {
    html() {}, // undefined: no such token; false would mean marked's own
    tag(source) {
      const lineBreak = /^<br\s*\/?>/i.exec(source);
      return lineBreak ? { type: "br", raw: lineBreak[0] } : undefined;
    },
    def: (source) => (NUMBERED_LINE.test(source) ? undefined : false),
  },
  renderer: {
    html: ({ text }) => escape(text),
    image: ({ text }) => escape(text),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>\n`;
    },
  },
});

const purify = createDOMPurify(window);
purify.addHook("afterSanitizeAttributes", (node) => {
  if (node.nodeName !== "A" || !node.hasAttribute("href")) return;
  node.setAttribute("rel", "noopener noreferrer nofollow");
  node.setAttribute("target", "_blank");
});

/** HTML text → a fragment of allowed nodes. */
export function sanitise(html) {
  return purify.sanitize(html, {
    RETURN_DOM_FRAGMENT: true,
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ["href", "title", "start", "align"],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  });
}

/** Markdown → a fragment of safe nodes. */
export function render(markdown) {
  return dress(sanitise(marked.parse(markdown)));
}

/** A wide table scrolls in a box of its own, which the keyboard can reach; so does a code block. */
function dress(fragment) {
  for (const table of fragment.querySelectorAll("table")) {
    const box = document.createElement("div");
    box.className = "table-box";
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Table");
    table.replaceWith(box);
    box.append(table);
  }
  for (const pre of fragment.querySelectorAll("pre")) pre.tabIndex = 0;
  return fragment;
}

/**
 * Markdown that is still growing, shown in `element`. It is drawn at most once per animation frame, and only the blocks that changed,
 * so that a frame costs the same at the end of a long answer as at its start, and what the reader has selected in an earlier paragraph stays selected.
 */
export class GrowingMarkdown {
  #element;
  #text = "";
  #settled = 0; // characters of the text that no longer change and are not parsed again
  #open = []; // [{raw, node}] of the top-level blocks after them
  #frame = 0;
  #onDraw;

  constructor(element, onDraw = () => {}) {
    this.#element = element;
    this.#onDraw = onDraw;
  }

  append(text) {
    this.#text += text.replaceAll("\r", ""); // marked drops them too, and its blocks are counted in characters
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
      this.#onDraw();
    });
  }

  /** Draws the whole once more, at once: a link's definition at the end may have changed a block at the start. */
  finish() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#open = [];
    this.#element.replaceChildren(render(this.#text));
    this.#onDraw();
  }

  #draw() {
    const tokens = marked.lexer(this.#text.slice(this.#settled));
    let same = 0;
    while (same < tokens.length && this.#open[same]?.raw === tokens[same].raw) same++;
    for (const { node } of this.#open.splice(same)) node.remove();
    for (const token of tokens.slice(same)) {
      const node = document.createElement("div");
      node.append(dress(sanitise(marked.parser([token]))));
      this.#element.append(node);
      this.#open.push({ raw: token.raw, node });
    }
    while (this.#open.length > OPEN_BLOCKS && this.#text.startsWith(this.#open[0].raw, this.#settled)) this.#settled += this.#open.shift().raw.length;
  }
}
