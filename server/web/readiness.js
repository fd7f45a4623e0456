// Whether the server can answer: asked every second until it can, and again when it seems that it cannot.

const POLL_MS = 1000;
const PATIENCE_MS = 5000;

export class Readiness {
  ready = false;
  #onChange;
  #polling = false;

  /** `onChange({ready, phase, model})` is called at every poll whose answer differs from the one before. */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  async check() {
    if (this.#polling) return;
    this.#polling = true;
    let last = null;
    for (;;) {
      const state = await this.#ask();
      this.ready = state.ready;
      const told = JSON.stringify(state);
      if (told !== last) this.#onChange(state);
      last = told;
      if (state.ready) break;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    this.#polling = false;
  }

  async #ask() {
    try {
      const response = await fetch("/health/ready", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
      const body = await response.json();
      if (response.ok) return { ready: true, phase: "ready", model: body.model ?? null };
      return { ready: false, phase: body.phase || body.status || "starting", model: null };
    } catch {
      return { ready: false, phase: "the server cannot be reached", model: null };
    }
  }
}
