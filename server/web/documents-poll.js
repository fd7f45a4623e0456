// Asks again and again while there is something to hear: sooner after news, later without, not at all in a hidden tab.

const SOON_MS = 400;
const LATE_MS = 5000;
const SLOWER = 1.6;

export class Poller {
  #ask; // () → Promise<"news" | "same" | "over">; does not throw
  #pauseMs = SOON_MS;
  #timer = 0;
  #asking = false;
  #wanted = false;

  constructor(ask) {
    this.#ask = ask;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) clearTimeout(this.#timer);
      else if (this.#wanted) this.start();
    });
  }

  /** There may be news. */
  start() {
    this.#wanted = true;
    this.#pauseMs = SOON_MS;
    this.#later();
  }

  stop() {
    this.#wanted = false;
    clearTimeout(this.#timer);
  }

  #later() {
    clearTimeout(this.#timer);
    if (this.#wanted && !this.#asking && !document.hidden) this.#timer = setTimeout(() => this.#go(), this.#pauseMs);
  }

  async #go() {
    this.#asking = true;
    this.#wanted = false; // a start() meanwhile counts
    const heard = await this.#ask();
    this.#asking = false;
    if (heard !== "over") this.#wanted = true;
    this.#pauseMs = heard === "news" ? SOON_MS : Math.min(LATE_MS, this.#pauseMs * SLOWER);
    this.#later();
  }
}
