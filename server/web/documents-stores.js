// Which vector store the page is about: the chooser, what is in it, and making, renaming and deleting stores.

import { copyButton } from "./clipboard.js";
import { DEFAULT_STORE, storeLabels, storeName } from "./documents-client.js";
import { failure, button, plainName } from "./documents-text.js";
import { element } from "./element.js";
import { plural, size } from "./figures.js";

const REMEMBERED = "firstword.documents.store";
const LONGEST_OPTION = 60;
const ADDRESS = "store="; // in the fragment

export class StorePanel {
  store = null; // the chosen one
  #client;
  #ask;
  #say;
  #onChoose;
  #stores = [];
  #select = document.getElementById("store");
  #figures = document.getElementById("store-figures");
  #id = document.getElementById("store-id");
  #problem = document.getElementById("store-problem");
  #rename = document.getElementById("store-rename");
  #delete = document.getElementById("store-delete");

  /** `onChoose(store)` is called when another store is chosen, not when its figures change. */
  constructor({ client, ask, say, onChoose }) {
    this.#client = client;
    this.#ask = ask;
    this.#say = say;
    this.#onChoose = onChoose;
    this.#select.addEventListener("change", () => this.choose(this.#select.value));
    document.getElementById("store-new").addEventListener("click", () => this.#askNew());
    this.#rename.addEventListener("click", () => this.#askRename());
    this.#delete.addEventListener("click", () => this.#askDelete());
    addEventListener("hashchange", () => fromAddress() && this.choose(fromAddress()));
    document.getElementById("store-copy").replaceWith(copyButton("Copy id", () => this.store?.id ?? "", say));
  }

  /** Throws ApiError. */
  async load() {
    this.#stores = await this.#client.stores();
    const wanted = [fromAddress(), this.store?.id, remembered(), DEFAULT_STORE];
    const chosen = wanted.map((id) => this.#stores.find((store) => store.id === id)).find(Boolean) ?? this.#stores[0];
    const lost = fromAddress();
    this.#problem.replaceChildren();
    if (lost && chosen?.id !== lost) this.#problem.append(failure("There is no such vector store.", { message: `${lost.slice(0, 64)} was deleted, or belongs to another API key.` }));
    if (chosen) this.choose(chosen.id);
  }

  choose(id) {
    const store = this.#stores.find((one) => one.id === id);
    if (!store) {
      this.load().catch((error) => this.#problem.replaceChildren(failure("The vector stores could not be listed.", error)));
      return;
    }
    const another = store.id !== this.store?.id;
    this.store = store;
    this.#show();
    if (!another) return;
    history.replaceState(null, "", `#${ADDRESS}${encodeURIComponent(id)}`);
    try {
      localStorage.setItem(REMEMBERED, id);
    } catch {
      // storage is blocked: the choice lasts as long as the page
    }
    this.#onChoose(store);
  }

  /** The store as the server has told it since. */
  renew(store) {
    const at = this.#stores.findIndex(({ id }) => id === store.id);
    if (at < 0) return;
    this.#stores[at] = store;
    if (store.id !== this.store.id) return;
    this.store = store;
    this.#show();
  }

  /** The chosen store is not there any more. */
  async gone() {
    if (fromAddress()) history.replaceState(null, "", location.pathname);
    const name = storeName(this.store);
    this.store = null;
    await this.load();
    this.#problem.replaceChildren(failure("Deleted meanwhile.", { message: `The vector store ${name} is not there any more.` }));
  }

  #show() {
    const labels = storeLabels(this.#stores);
    const options = this.#stores.map(({ id }) => element("option", { value: id }, short(plainName(labels.get(id)))));
    if (options.map(({ text }) => text).join("\n") !== [...this.#select.options].map(({ text }) => text).join("\n")) this.#select.replaceChildren(...options);
    this.#select.value = this.store.id;
    const { file_counts: counts, usage_bytes: bytes, status } = this.store;
    const figures = counts.total === 0 ? ["No uploaded files"] : [plural(counts.total, "uploaded file"), size(bytes)];
    if (counts.in_progress > 0) figures.push(`${counts.in_progress} in progress`);
    if (counts.failed > 0) figures.push(`${counts.failed} failed`);
    if (status === "expired") figures.push("expired: it can neither be searched nor added to");
    this.#figures.textContent = figures.join(" · ");
    this.#id.textContent = plainName(this.store.id);
    const own = this.store.id !== DEFAULT_STORE;
    this.#rename.hidden = !own;
    this.#delete.hidden = !own;
  }

  async #askNew() {
    const made = await this.#ask.open({
      title: "New vector store",
      text: "A vector store holds documents that are searched together. Only your API key can see it.",
      action: "Create",
      field: { label: "Name", value: "" },
      run: ({ name }) => this.#client.create(name),
    });
    if (!made) return;
    this.#stores.push(made);
    this.choose(made.id);
    this.#say(`The vector store ${plainName(storeName(made))} was made.`);
  }

  async #askRename() {
    const { id, name } = this.store;
    const renamed = await this.#ask.open({
      title: `Rename “${short(storeName(this.store))}”`,
      text: "Its id stays the same.",
      action: "Rename",
      field: { label: "Name", value: name ?? "" },
      run: ({ name: wanted }) => this.#client.rename(id, wanted),
    });
    if (!renamed) return;
    this.renew(renamed);
    this.#say("Renamed.");
  }

  async #askDelete() {
    const { id, file_counts: counts } = this.store;
    const deleted = await this.#ask.open({
      title: `Delete “${short(storeName(this.store))}”?`,
      text: `Nothing in it will be found any more: ${plural(counts.total, "file")}. This cannot be undone. The uploaded files themselves stay on the server.`,
      action: "Delete store",
      danger: true,
      run: () => this.#client.deleteStore(id),
    });
    if (!deleted) return;
    this.#stores = this.#stores.filter((store) => store.id !== id);
    history.replaceState(null, "", location.pathname);
    this.choose(DEFAULT_STORE);
    this.#say("The vector store was deleted.");
    this.#select.focus();
  }

  /** For where the store may not be changed. */
  newButton = () => button("New store", () => this.#askNew());
}

const short = (text) => (text.length > LONGEST_OPTION ? `${text.slice(0, LONGEST_OPTION - 1)}…` : text);

function fromAddress() {
  try {
    return location.hash.startsWith(`#${ADDRESS}`) ? decodeURIComponent(location.hash.slice(1 + ADDRESS.length)) : null;
  } catch {
    return null; // not what we wrote there
  }
}

function remembered() {
  try {
    return localStorage.getItem(REMEMBERED);
  } catch {
    return null;
  }
}
