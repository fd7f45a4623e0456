// The dialog that asks before something is made, renamed or taken away. What was agreed to is done while it is open, and told in it if it fails.

import { plainName, reason } from "./documents-text.js";

export class AskDialog {
  #dialog = document.getElementById("ask");
  #title = document.getElementById("ask-title");
  #text = document.getElementById("ask-text");
  #field = document.getElementById("ask-field");
  #input = document.getElementById("ask-input");
  #choice = document.getElementById("ask-choice");
  #check = document.getElementById("ask-check");
  #failed = document.getElementById("ask-failed");
  #cancel = document.getElementById("ask-cancel");
  #go = document.getElementById("ask-go");
  #run = null;
  #result = null;
  #busy = false;

  constructor() {
    this.#cancel.addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("cancel", (event) => this.#busy && event.preventDefault());
    document.getElementById("ask-form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#busy) this.#try();
    });
  }

  /**
   * Shows a title and a text; `field` {label, value} asks for a name, `choice` {label} for a yes or no beside the question.
   * `run({name, chosen})` does it. Resolves to what `run` resolved to, or to null when the user declined.
   */
  open({ title, text, action, danger = false, field = null, choice = null, run }) {
    this.#run = run;
    this.#result = null;
    this.#title.textContent = plainName(title);
    this.#text.textContent = text;
    this.#go.textContent = action;
    this.#go.classList.toggle("danger", danger);
    this.#field.hidden = field === null;
    this.#input.required = field !== null;
    this.#input.value = field?.value ?? "";
    document.getElementById("ask-label").textContent = field?.label ?? "";
    this.#choice.hidden = choice === null;
    this.#check.checked = false;
    document.getElementById("ask-check-label").textContent = choice?.label ?? "";
    this.#failed.textContent = "";
    this.#dialog.showModal();
    // Where something would be lost, Enter alone does not do it.
    (field ? this.#input : this.#cancel).focus();
    if (field) this.#input.select();
    return new Promise((resolve) => this.#dialog.addEventListener("close", () => resolve(this.#result), { once: true }));
  }

  async #try() {
    const name = this.#input.value.trim();
    if (this.#input.required && name === "") {
      this.#failed.textContent = "A name is needed.";
      return;
    }
    this.#hold(true);
    try {
      this.#result = (await this.#run({ name, chosen: this.#check.checked })) ?? true;
      this.#dialog.close();
    } catch (error) {
      this.#failed.textContent = plainName(reason(error));
    } finally {
      this.#hold(false);
    }
  }

  #hold(busy) {
    this.#busy = busy;
    for (const control of [this.#cancel, this.#go]) control.disabled = busy;
    if (!busy && this.#dialog.open) this.#go.focus();
  }
}
