// Type-ahead: what is typed so far goes ahead of the question, so that the server retrieves and prefills while the user still types.
//
// It never stands in the way: one request at a time, given up when the question is sent; no failure of it is shown.

const PAUSE_MS = 300; // after the last key
const STEADY_MS = 1000; // and at least this often while the typing goes on
const BACK_OFF_MS = 5000; // after a refusal that does not say how long

export class TypeAhead {
  #send; // (text, AbortSignal) → Promise<{status, reason}>
  #mayGo; // () → boolean
  #onAhead; // (boolean): whether the server has read some of what stands in the field
  #text = "";
  #sent = null; // the text that went last
  #unsentSinceMs = null; // when the first key came that nothing sent yet holds
  #timer = 0;
  #flight = null; // AbortController of the request that runs
  #waiting = false; // the text was due while a request ran
  #notBeforeMs = 0;
  #keyless = false; // refused for want of a key: the next question asks for one
  #off = false; // this server has no type-ahead

  constructor({ send, mayGo, onAhead }) {
    this.#send = send;
    this.#mayGo = mayGo;
    this.#onAhead = onAhead;
  }

  /** After every change of the field. Costs a timer. */
  typed(draft) {
    const text = draft.trim(); // as the question will be
    if (text === this.#text) return;
    this.#text = text;
    if (text === "") this.cancel();
    else this.#schedule();
  }

  /** The question is on its way, or there is none: what runs for it would only compete with the answer. */
  cancel() {
    clearTimeout(this.#timer);
    this.#flight?.abort();
    this.#flight = null;
    this.#waiting = false;
    this.#unsentSinceMs = null;
    this.#text = "";
    this.#sent = null;
    this.#onAhead(false);
  }

  /** An answer has ended, the server is ready, or the conversation is another: the draft goes at once. */
  resume(draft) {
    this.#text = draft.trim();
    this.#sent = null;
    this.#keyless = false;
    this.#go();
  }

  #schedule() {
    const nowMs = performance.now();
    this.#unsentSinceMs ??= nowMs;
    const dueMs = Math.max(Math.min(nowMs + PAUSE_MS, this.#unsentSinceMs + STEADY_MS), this.#notBeforeMs);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#go(), dueMs - nowMs);
  }

  #go() {
    clearTimeout(this.#timer);
    this.#unsentSinceMs = null;
    if (this.#off || this.#keyless || this.#text === "" || this.#text === this.#sent || !this.#mayGo()) return;
    if (navigator.connection?.saveData) return;
    if (this.#flight) this.#waiting = true;
    else if (performance.now() < this.#notBeforeMs) this.#schedule();
    else this.#fly(this.#text);
  }

  async #fly(text) {
    const flight = new AbortController();
    this.#flight = flight;
    this.#sent = text;
    try {
      const { status, reason } = await this.#send(text, flight.signal);
      if (reason === "rebuilt") this.#off = true; // no prompt of this server goes on from another
      if (!flight.signal.aborted && status === "started") this.#onAhead(true);
    } catch (error) {
      if (!flight.signal.aborted) this.#learn(error);
    }
    if (flight.signal.aborted) return; // another may be on its way
    this.#flight = null;
    if (!this.#waiting) return;
    this.#waiting = false;
    this.#go();
  }

  #learn({ status, param, retryAfterS }) {
    if (status === 405 || (status === 404 && param !== "model")) this.#off = true;
    if (status === 401) this.#keyless = true;
    if (status !== 429) return;
    this.#notBeforeMs = performance.now() + (retryAfterS ? retryAfterS * 1000 : BACK_OFF_MS);
    this.#sent = null; // it was not taken: the next key may send it again
  }
}
