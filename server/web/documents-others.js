// Uploaded files that are not in the chosen store: to be added without another upload, or deleted for good. Listed when they are asked for.

import { FileRow } from "./documents-row.js";
import { failure, plainName } from "./documents-text.js";
import { size } from "./figures.js";

const MOST_SHOWN = 200;

export class OtherFiles {
  #client;
  #ask;
  #say;
  #onAttached; // (file in the store)
  #store = null;
  #loads = 0; // a listing that comes late belongs to an earlier one
  #box = document.getElementById("others");
  #list = document.getElementById("others-files");
  #note = document.getElementById("others-note");

  constructor({ client, ask, say, onAttached }) {
    this.#client = client;
    this.#ask = ask;
    this.#say = say;
    this.#onAttached = onAttached;
    this.#box.addEventListener("toggle", () => this.refresh());
  }

  open(store) {
    this.#store = store;
    this.#list.replaceChildren();
    this.refresh();
  }

  /** Something was added, removed or deleted. */
  async refresh() {
    if (!this.#box.open || !this.#store) return;
    const load = ++this.#loads;
    if (!this.#list.hasChildNodes()) this.#note.replaceChildren("Listing the files…");
    try {
      const [uploaded, { data: attached }] = await Promise.all([this.#client.uploaded(), this.#client.files(this.#store.id, {})]);
      if (load === this.#loads) this.#show(uploaded, new Set(attached.map(({ id }) => id)));
    } catch (error) {
      if (load === this.#loads) this.#note.replaceChildren(failure("The uploaded files could not be listed.", error));
    }
  }

  #show(uploaded, attached) {
    const others = uploaded.filter(({ id }) => !attached.has(id));
    const rows = others.slice(0, MOST_SHOWN).map((file) => this.#row(file));
    const hadFocus = this.#list.contains(document.activeElement);
    this.#list.replaceChildren(...rows.map((row) => row.element));
    this.#list.hidden = rows.length === 0;
    if (hadFocus) (rows[0] ?? this.#box.querySelector("summary")).focus();
    if (others.length === 0) this.#note.textContent = "There is none: every file that you uploaded is in this store.";
    else this.#note.textContent = others.length > rows.length ? `The newest ${rows.length} of ${others.length}.` : "";
  }

  #row(file) {
    const row = new FileRow(() => "");
    const actions = [
      ["Add to this store", () => this.#add(file, row)],
      ["Delete", () => this.#askDelete(file)],
    ];
    row.show({ name: file.filename, state: "uploaded", label: "", meta: size(file.bytes), note: "", actions });
    return row;
  }

  async #add(file, row) {
    try {
      this.#onAttached(await this.#client.attach(this.#store.id, file.id));
      this.#say(`${plainName(file.filename)} was added.`);
      await this.refresh();
    } catch (error) {
      row.show({ ...row.view, state: "failed", note: error.message });
    }
  }

  async #askDelete(file) {
    const deleted = await this.#ask.open({
      title: `Delete “${file.filename}”?`,
      text: "The file is deleted from the server and leaves every vector store that it is in. This cannot be undone.",
      action: "Delete file",
      danger: true,
      run: () => this.#client.deleteFile(file.id),
    });
    if (!deleted) return;
    this.#say(`${plainName(file.filename)} was deleted.`);
    await this.refresh();
  }
}
