// The dialog that asks for an API key.

export class KeyDialog {
  #dialog = document.getElementById("key");
  #input = document.getElementById("key-input");
  #note = document.getElementById("key-note");
  #plainNote = this.#note.textContent;
  #answer = null;

  constructor() {
    document.getElementById("key-cancel").addEventListener("click", () => this.#dialog.close());
    document.getElementById("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#answer = this.#input.value.trim() || null;
      this.#dialog.close();
    });
  }

  /** Resolves to the key, or to null when the user declines. */
  ask = (refusal) =>
    new Promise((resolve) => {
      this.#answer = null;
      this.#input.value = "";
      this.#note.textContent = refusal ? `The key was refused: ${refusal}` : this.#plainNote;
      this.#note.classList.toggle("refused", Boolean(refusal));
      this.#dialog.addEventListener("close", () => resolve(this.#answer), { once: true });
      this.#dialog.showModal();
      this.#input.focus();
    });
}
