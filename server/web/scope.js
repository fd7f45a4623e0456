// Which vector stores answers come from. There is something to choose once there is another store than the deployment's `default`.

import { DEFAULT_STORE, listStores, storeLabels } from "./documents-client.js";
import { named } from "./documents-text.js";
import { element } from "./element.js";

const STORED = "firstword.scope";
const MOST_STORES = 16; // of one request

export class Scope {
  #api;
  #onChange;
  #box = document.getElementById("scope");
  #said = document.getElementById("scope-said");
  #list = document.getElementById("scope-stores");
  #stores = null; // as listed last
  #chosen = new Set(stored());
  #loading = false;

  /** `onChange()`: the next question is answered from other stores. */
  constructor({ api, onChange }) {
    this.#api = api;
    this.#onChange = onChange;
    this.#list.addEventListener("change", ({ target }) => this.#choose(target.value, target.checked));
    this.#box.addEventListener("toggle", () => this.#box.open && this.load());
    this.#box.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !this.#box.open) return;
      event.stopPropagation(); // it would stop an answer
      this.#box.open = false;
      this.#box.querySelector("summary").focus();
    });
    addEventListener("pointerdown", (event) => {
      if (!this.#box.contains(event.target)) this.#box.open = false;
    });
    this.#box.addEventListener("focusout", ({ relatedTarget }) => {
      if (relatedTarget && !this.#box.contains(relatedTarget)) this.#box.open = false;
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.load());
  }

  /** For a request; null where it is the server's own choice. */
  get storeIds() {
    const chosen = [...this.#chosen];
    return chosen.length === 1 && chosen[0] === DEFAULT_STORE ? null : chosen;
  }

  get known() {
    return this.#stores !== null;
  }

  /** Asks nobody for a key, and shows no error: without an answer there is nothing to choose. */
  async load() {
    if (this.#loading) return;
    this.#loading = true;
    try {
      this.#stores = await listStores(this.#api, { quiet: true });
    } catch {
      // the first question asks for a key; a server without vector stores answers from its documents
    }
    this.#loading = false;
    if (this.#stores === null) return;
    const there = new Set(this.#stores.map(({ id }) => id));
    const kept = [...this.#chosen].filter((id) => there.has(id));
    if (kept.length < this.#chosen.size) this.#set(kept.length > 0 ? kept : [DEFAULT_STORE]);
    this.#show();
  }

  #choose(id, chosen) {
    this.#set(chosen ? [...this.#chosen, id] : [...this.#chosen].filter((other) => other !== id));
    this.#show();
  }

  #set(ids) {
    this.#chosen = new Set(ids);
    try {
      localStorage.setItem(STORED, JSON.stringify(ids));
    } catch {
      // storage is blocked: the choice lasts as long as the page
    }
    this.#onChange();
  }

  #show() {
    this.#box.hidden = this.#stores.length < 2;
    const labelled = storeLabels(this.#stores);
    const names = [...labelled].filter(([id]) => this.#chosen.has(id)).map(([, name]) => named(name));
    this.#said.replaceChildren(...(names.length === 0 ? ["no documents"] : names.flatMap((name, at) => (at === 0 ? [name] : [", ", name]))));
    const full = names.length >= MOST_STORES;
    const held = new Map([...this.#list.querySelectorAll("input")].map((input) => [input.value, input]));
    const labels = this.#stores.map((store) => {
      const input = held.get(store.id) ?? element("input", { type: "checkbox", value: store.id });
      input.checked = this.#chosen.has(store.id);
      input.disabled = full && !input.checked;
      const label = input.parentElement ?? element("label", {}, input, " ", element("span", {}));
      label.lastChild.replaceChildren(named(labelled.get(store.id)));
      return label;
    });
    for (const [id, input] of held) if (!this.#stores.some((store) => store.id === id)) input.parentElement.remove();
    labels.forEach((label, at) => {
      const place = this.#list.querySelectorAll("label")[at] ?? null;
      if (place !== label) this.#list.insertBefore(label, place); // one that stays in place keeps its focus
    });
  }
}

function stored() {
  try {
    const ids = JSON.parse(localStorage.getItem(STORED));
    if (Array.isArray(ids) && ids.every((id) => typeof id === "string")) return ids.slice(0, MOST_STORES);
  } catch {
    // storage is blocked, or what it holds is not ours
  }
  return [DEFAULT_STORE];
}
