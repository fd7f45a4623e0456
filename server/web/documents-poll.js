// Asks again and again while there is something to hear: sooner after news, later without, not at all in a hidden tab.

const SOON_MS = 400;
const LATE_MS = 5000;
const SLOWER = 1.6;

export class Poller {
  #ask; // () → Promise<"news" | "same" | "over">; does not throw
  #pauseMs = SOON_MS;
  #timer = 0;
  #dueMs = Infinity;
  #asking = false;
  #wanted = false;

  constructor(ask) {
    this.#ask = ask;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#forget();
      else if (this.#wanted) this.start();
    });
  }

  /** There may be news. What is due sooner stays due: calls in a row put nothing off. */
  start() {
    this.#wanted = true;
    this.#pauseMs = SOON_MS;
    this.#later();
  }

  stop() {
    this.#wanted = false;
    this.#forget();
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#dueMs = Infinity;
  }

  #later() {
    if (!this.#wanted || this.#asking || document.hidden) return;
    const dueMs = performance.now() + this.#pauseMs;
    if (dueMs >= this.#dueMs) return;
    clearTimeout(this.#timer);
    this.#dueMs = dueMs;
    this.#timer = setTimeout(() => this.#go(), this.#pauseMs);
  }

  async #go() {
    this.#forget();
    this.#asking = true;
    this.#wanted = false; // a start() meanwhile counts
    const heard = await this.#ask();
    this.#asking = false;
    if (heard !== "over") this.#wanted = true;
    this.#pauseMs = heard === "news" ? SOON_MS : Math.min(LATE_MS, this.#pauseMs * SLOWER);
    this.#later();
  }
}
