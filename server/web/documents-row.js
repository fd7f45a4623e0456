// One file in the list: its name, how far it is, what went wrong, and what can be done about it.

import { button, named, plainName } from "./documents-text.js";
import { element } from "./element.js";
import { count, plural, size } from "./figures.js";

/**
 * What a row shows. `share`: 0 to 1, null for a bar without a measure, undefined for none. `actions`: [[label, does]].
 * state: "waiting" | "sending" | "in_progress" | "completed" | "failed" | "cancelled".
 */
export function viewOfUpload(upload, { onRetry, onCancel }) {
  const { state, sent, note, file, path } = upload;
  const common = { name: file.name, meta: [size(file.size), path].filter(Boolean).join(" · "), note };
  if (state === "failed") return { ...common, state, label: "Not uploaded", actions: [...(upload.hopeless ? [] : [["Try again", onRetry]]), ["Dismiss", onCancel]] };
  const actions = [["Cancel", onCancel]];
  if (state === "waiting") return { ...common, state, label: "Waiting", share: 0, actions };
  if (state === "attaching" || sent === 1) return { ...common, state: "sending", label: "Storing", share: null, actions };
  return { ...common, state, label: `Uploading, ${Math.floor(100 * sent)}%`, share: sent, actions };
}

export function viewOfFile(file, { onRetry, onRemove }) {
  const { status, usage_bytes: bytes, last_error: error, attributes, firstword = {} } = file;
  const meta = [];
  if (status === "completed" && typeof firstword.n_chunks === "number") meta.push(plural(firstword.n_chunks, "chunk"));
  if (bytes > 0) meta.push(size(bytes));
  if (typeof attributes?.path === "string") meta.push(attributes.path);
  const view = { id: file.id, name: firstword.filename || file.id, state: status, meta: meta.join(" · "), note: "", label: "", actions: [["Remove", onRemove]] };
  if (status === "in_progress") return { ...view, ...readingOf(firstword.progress) };
  if (status === "completed") return { ...view, label: "Done" };
  view.actions.unshift(["Try again", onRetry]);
  if (status === "cancelled") return { ...view, label: "Cancelled", note: "It was not read in, and is not found." };
  const why = error?.message || "The server did not say why.";
  return { ...view, label: "Failed", note: why.startsWith(`${view.name}: `) ? why.slice(view.name.length + 2) : why }; // the name stands above
}

function readingOf(progress) {
  if (!progress || progress.chunks_total === 0) return { label: "Reading", share: null };
  const { chunks_done: done, chunks_total: total } = progress;
  return { label: `Indexing ${count(done)} of ${plural(total, "chunk")}`, share: done / total };
}

export class FileRow {
  element = element("li", { className: "file" });
  view = null;
  #name = element("p", { className: "file-name" });
  #label = element("span", { className: "file-state" });
  #bar = element("progress", { max: 1 });
  #note = element("p", { className: "file-note" });
  #meta = element("p", { className: "file-meta" });
  #actions = element("div", { className: "file-actions" });
  #copy; // (id) → button
  #calls = [];

  constructor(copy) {
    this.#copy = copy;
    const head = element("div", { className: "file-head" }, this.#name, this.#label);
    this.element.append(head, this.#bar, this.#note, element("div", { className: "file-foot" }, this.#meta, this.#actions));
  }

  /** Changes what has changed: focus stays on a button that stays. */
  show(view) {
    const before = this.view;
    this.view = view;
    this.#calls = view.actions.map(([, does]) => does);
    if (view.name !== before?.name) {
      this.#name.replaceChildren(named(view.name));
      this.#bar.setAttribute("aria-label", `Progress of ${plainName(view.name)}`);
    }
    this.element.dataset.state = view.state;
    setText(this.#label, view.label);
    setText(this.#note, plainName(view.note));
    setText(this.#meta, plainName(view.meta));
    this.#note.hidden = view.note === "";
    this.#bar.hidden = view.share === undefined;
    if (typeof view.share === "number") this.#bar.value = view.share;
    else this.#bar.removeAttribute("value");
    const labels = ({ actions, id }) => [...actions.map(([label]) => label), id].join("|");
    if (!before || labels(view) !== labels(before)) this.#showActions(view);
  }

  get hasFocus() {
    return this.element.contains(document.activeElement);
  }

  focus() {
    this.#actions.querySelector("button")?.focus();
  }

  #showActions({ actions, id, name }) {
    const buttons = actions.map(([label], at) => {
      const action = button(label, () => this.#calls[at]());
      action.setAttribute("aria-label", `${label}: ${plainName(name)}`);
      return action;
    });
    if (id) buttons.push(this.#copy(id));
    const hadFocus = this.hasFocus;
    this.#actions.replaceChildren(...buttons);
    if (hadFocus) this.focus();
  }
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
