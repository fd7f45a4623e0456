// The files of the chosen store, those on their way included: listed, filtered, followed until they are done, and removed.

import { copyButton } from "./clipboard.js";
import { DEFAULT_STORE, storeName } from "./documents-client.js";
import { Poller } from "./documents-poll.js";
import { FileRow, viewOfFile, viewOfUpload } from "./documents-row.js";
import { button, failure, plainName } from "./documents-text.js";
import { element } from "./element.js";
import { count } from "./figures.js";

const STATES = { in_progress: "In progress", completed: "Done", failed: "Failed", cancelled: "Cancelled" };
const ON_THE_WAY = new Set(["waiting", "sending", "attaching", "in_progress"]);

export class FileList {
  #client;
  #uploads;
  #ask;
  #announcer;
  #onStore; // (store): its figures have changed
  #onGone; // the store is not there any more
  #onRemoved;
  #store = null;
  #status = ""; // the filter
  #pages = 1;
  #files = [];
  #hasMore = false;
  #rows = new Map(); // by key
  #drawing = 0;
  #loading = null; // AbortController of the listing that runs
  #loaded = false;
  #poller = new Poller(() => this.#poll());
  #list = document.getElementById("files");
  #title = document.getElementById("files-title");
  #empty = document.getElementById("files-empty");
  #problem = document.getElementById("files-problem");
  #more = document.getElementById("files-more");
  #filter = document.getElementById("files-filter");

  constructor({ client, uploads, ask, announcer, onStore, onGone, onRemoved }) {
    this.#client = client;
    this.#uploads = uploads;
    this.#ask = ask;
    this.#announcer = announcer;
    this.#onStore = onStore;
    this.#onGone = onGone;
    this.#onRemoved = onRemoved;
    this.#filter.addEventListener("change", (event) => this.#filterBy(event.target.value));
    this.#more.addEventListener("click", () => {
      this.#pages++;
      this.#load();
    });
  }

  /** Another store. */
  open(store) {
    this.#store = store;
    this.#pages = 1;
    this.#status = "";
    this.#empties();
    this.#load();
  }

  /** One that was attached just now. */
  take(file) {
    if (file.vector_store_id !== this.#store?.id) return;
    this.#files = [file, ...this.#files.filter(({ id }) => id !== file.id)];
    this.show();
    this.#poller.start();
  }

  /** Many files change at once: drawn once a frame. */
  show() {
    this.#drawing ||= requestAnimationFrame(() => this.#show());
  }

  #empties() {
    this.#files = [];
    this.#loaded = false;
    this.#hasMore = false;
    this.#problem.replaceChildren();
    this.#show();
  }

  #filterBy(status) {
    this.#status = status;
    this.#pages = 1;
    this.#empties();
    this.#load();
  }

  async #load() {
    this.#poller.stop();
    const heard = await this.#poll();
    if (heard !== "over") this.#poller.start();
  }

  /** Lists anew what is shown, with the store's figures. */
  async #poll() {
    this.#loading?.abort();
    const loading = (this.#loading = new AbortController());
    const { id } = this.#store;
    try {
      const { signal } = loading;
      const [store, { data, hasMore }] = await Promise.all([
        this.#client.store(id, { signal }),
        this.#client.files(id, { status: this.#status, pages: this.#pages, signal }),
      ]);
      if (loading.signal.aborted) return "over"; // whoever aborted asks
      return this.#heard(store, data, hasMore);
    } catch (error) {
      if (loading.signal.aborted) return "over";
      return this.#failed(error);
    }
  }

  #heard(store, files, hasMore) {
    const before = new Map(this.#files.map((file) => [file.id, file]));
    const changed = files.length !== before.size || files.some((file) => different(before.get(file.id), file));
    for (const file of files) if (before.get(file.id)?.status === "in_progress" && file.status !== "in_progress") this.#announcer.ended(viewOfFile(file, {}));
    this.#files = files;
    this.#hasMore = hasMore;
    this.#loaded = true;
    this.#problem.replaceChildren();
    this.#store = store;
    this.#onStore(store);
    this.#show();
    if (store.file_counts.in_progress === 0) return "over";
    return changed ? "news" : "same";
  }

  #failed(error) {
    if (error.status === 404) {
      this.#onGone();
      return "over";
    }
    const what = this.#loaded ? "How far the files are could not be asked." : "The files could not be listed.";
    this.#problem.replaceChildren(failure(what, error, button("Try again", () => this.#load())));
    return this.#loaded ? "same" : "over";
  }

  #show() {
    cancelAnimationFrame(this.#drawing);
    this.#drawing = 0;
    const uploads = this.#uploads.of(this.#store.id);
    const views = [...uploads.map((upload) => [upload.key, this.#viewOfUpload(upload)]), ...this.#files.map((file) => [file.id, this.#viewOfFile(file)])];
    const shown = views.filter(([, view]) => this.#status === "" || this.#status === (ON_THE_WAY.has(view.state) ? "in_progress" : view.state));
    this.#dropRows(new Set(shown.map(([key]) => key)));
    let last = null;
    for (const [key, view] of shown) {
      let row = this.#rows.get(key);
      if (!row) this.#rows.set(key, (row = new FileRow((id) => this.#copyButton(id))));
      row.show(view);
      const place = last ? last.nextSibling : this.#list.firstChild;
      if (place !== row.element) this.#list.insertBefore(row.element, place);
      last = row.element;
    }
    this.#list.hidden = shown.length === 0;
    this.#list.setAttribute("aria-busy", String(!this.#loaded));
    this.#more.hidden = !this.#hasMore;
    this.#showEmpty(shown.length);
    this.#showFilter();
  }

  #copyButton(id) {
    const copy = copyButton("Copy id", () => id, this.#announcer.say);
    copy.title = plainName(id);
    return copy;
  }

  /** Focus that was in a row that goes moves to the next one, or to the one before. */
  #dropRows(kept) {
    const staying = new Set([...this.#rows].filter(([key]) => kept.has(key)).map(([, row]) => row.element));
    for (const [key, row] of this.#rows) {
      if (kept.has(key)) continue;
      const { element: node } = row;
      const nodes = [...this.#list.children];
      const at = nodes.indexOf(node);
      const near = row.hasFocus && (nodes.slice(at).find((other) => staying.has(other)) ?? nodes.slice(0, at).findLast((other) => staying.has(other)));
      if (row.hasFocus) (near?.querySelector("button") ?? this.#title).focus();
      node.remove();
      this.#rows.delete(key);
    }
  }

  #showEmpty(nShown) {
    this.#empty.hidden = nShown > 0;
    if (nShown > 0) return;
    const said = [];
    if (!this.#loaded) said.push(this.#problem.hasChildNodes() ? "" : "Listing the files…");
    else if (this.#status !== "") said.push("No file of this store is in that state.");
    else if (this.#store.id === DEFAULT_STORE)
      said.push("No file was uploaded to this store. What was ingested from folders on the server is found by searching, and is not listed here.");
    else said.push("Nothing is in this store yet. Add files above; when they are done, search them here or choose this store on the chat page.");
    this.#empty.textContent = said[0];
  }

  /** Only states that some file is in can be chosen. */
  #showFilter() {
    const counts = { ...this.#store.file_counts };
    for (const upload of this.#uploads.of(this.#store.id)) {
      counts.total++;
      counts[ON_THE_WAY.has(upload.state) ? "in_progress" : upload.state]++;
    }
    const states = Object.keys(STATES).filter((state) => counts[state] > 0 || state === this.#status);
    this.#filter.hidden = states.length < 2 && this.#status === "";
    const wanted = [["", `All ${count(counts.total)}`], ...states.map((state) => [state, `${STATES[state]} ${count(counts[state])}`])];
    const held = new Map([...this.#filter.querySelectorAll("label")].map((label) => [label.firstChild.value, label]));
    for (const [value, label] of held) if (!wanted.some(([state]) => state === value)) label.remove();
    for (const [at, [value, text]] of wanted.entries()) {
      let label = held.get(value);
      if (!label) {
        label = element("label", {}, element("input", { type: "radio", name: "status", value }), element("span", {}));
        held.set(value, label);
        const after = wanted.slice(0, at).findLast(([state]) => held.has(state));
        if (after) held.get(after[0]).after(label);
        else this.#filter.append(label);
      }
      label.firstChild.checked = value === this.#status;
      if (label.lastChild.textContent !== text) label.lastChild.textContent = text;
    }
  }

  #viewOfUpload(upload) {
    return viewOfUpload(upload, { onRetry: () => this.#uploads.retry(upload), onCancel: () => this.#uploads.cancel(upload) });
  }

  #viewOfFile(file) {
    return viewOfFile(file, { onRetry: () => this.#readAgain(file), onRemove: () => this.#askRemove(file) });
  }

  async #readAgain(file) {
    try {
      this.take(await this.#client.attach(file.vector_store_id, file.id, file.attributes));
    } catch (error) {
      this.#tell(file, "could not be read in again.", error);
    }
  }

  async #askRemove(file) {
    const name = viewOfFile(file, {}).name;
    const removed = await this.#ask.open({
      title: `Remove “${name}”?`,
      text: `It will not be found in ${plainName(storeName(this.#store))} any more.`,
      action: "Remove",
      danger: true,
      choice: { label: "Delete the uploaded file as well: it leaves every other store, too" },
      run: ({ chosen }) => (chosen ? this.#client.deleteFile(file.id) : this.#client.detach(file.vector_store_id, file.id)),
    });
    if (!removed) return;
    this.#files = this.#files.filter(({ id }) => id !== file.id);
    this.#show();
    this.#announcer.say(`${plainName(name)} was removed.`);
    this.#onRemoved();
    this.#load();
  }

  #tell(file, what, error) {
    this.#problem.replaceChildren(failure(`${plainName(viewOfFile(file, {}).name)} ${what}`, error));
  }
}

function different(before, file) {
  return !before || before.status !== file.status || before.firstword?.progress?.chunks_done !== file.firstword?.progress?.chunks_done;
}
