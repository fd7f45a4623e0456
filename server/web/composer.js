// Where the question is typed. It knows whether the server is ready, whether an answer is running, and whether the server has read ahead.

export class Composer {
  #form = document.getElementById("composer");
  #field = document.getElementById("question");
  #send = document.getElementById("send");
  #stop = document.getElementById("stop");
  #hint = document.getElementById("hint");
  #ahead = document.getElementById("ahead");
  #plainHint = this.#hint.textContent;
  #ready = false;
  #running = false;

  constructor({ onSend, onStop, onType }) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const question = this.draft.trim();
      if (question === "" || !this.canSend) return;
      this.draft = "";
      onSend(question);
      this.focus();
    });
    this.#field.addEventListener("input", (event) => {
      this.#fit();
      if (!event.isComposing) onType(this.draft); // what an input method still composes is no word yet
    });
    this.#field.addEventListener("compositionend", () => onType(this.draft));
    this.#field.addEventListener("keydown", (event) => {
      // While an input method composes a word, Enter belongs to it (229: Safari says so only here).
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#form.requestSubmit();
    });
    this.#stop.addEventListener("click", onStop);
    this.#fit();
  }

  get canSend() {
    return this.#ready && !this.#running;
  }

  get draft() {
    return this.#field.value;
  }

  set draft(text) {
    this.#field.value = text;
    this.#fit();
  }

  focus() {
    this.#field.focus({ preventScroll: true });
  }

  ready({ ready, note }) {
    this.#ready = ready;
    this.#hint.textContent = ready ? this.#plainHint : note;
    this.#show();
  }

  running(running) {
    this.#running = running;
    const hadFocus = document.activeElement === this.#stop || document.activeElement === this.#send;
    this.#stop.hidden = !running;
    this.#send.hidden = running;
    this.#show();
    if (hadFocus) this.focus(); // the button it was on is gone
  }

  ahead(ahead) {
    this.#ahead.dataset.on = String(ahead);
  }

  #fit() {
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
    this.#show();
  }

  #show() {
    this.#send.disabled = !this.canSend || this.draft.trim() === "";
  }
}
