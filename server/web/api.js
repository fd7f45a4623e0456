// Requests to the server: the key when there is one, and one shape for all that goes wrong.

const STORED = "firstword.key";

export class ApiError extends Error {
  constructor(message, { status = 0, code = null, param = null, retryAfterS = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status; // 0: no answer at all
    this.code = code;
    this.param = param; // the field at fault
    this.retryAfterS = retryAfterS;
  }

  static async of(response) {
    let error = {};
    try {
      error = (await response.json()).error ?? {};
    } catch {
      // not the envelope: a proxy's page, perhaps
    }
    const seconds = Number.parseFloat(response.headers.get("retry-after") ?? "");
    return new ApiError(error.message || `The server answered ${response.status} ${response.statusText}`.trim() + ".", {
      status: response.status,
      code: error.code ?? null,
      param: error.param ?? null,
      retryAfterS: Number.isFinite(seconds) && seconds > 0 ? seconds : null,
    });
  }
}

export class Api {
  #key = null;
  #askKey; // (note) → Promise<string | null>
  #asking = null;

  constructor(askKey) {
    this.#askKey = askKey;
    try {
      this.#key = sessionStorage.getItem(STORED);
    } catch {
      // storage is blocked: the key lasts as long as the page
    }
  }

  /**
   * Resolves to the response and when it was asked for (performance.now()); throws ApiError, or AbortError when aborted.
   * `quiet`: a refused key is an error like any other, and the user is not asked for one.
   */
  async send(path, { quiet = false, ...init } = {}) {
    for (;;) {
      const key = this.#key;
      const headers = { ...init.headers, ...(key && { authorization: `Bearer ${key}` }) };
      const sentAt = performance.now();
      let response;
      try {
        response = await fetch(path, { ...init, headers, credentials: "same-origin", cache: "no-store" });
      } catch (error) {
        if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
        throw new ApiError("The server cannot be reached.");
      }
      if (response.ok) return { response, sentAt };
      const error = await ApiError.of(response);
      if (response.status !== 401 || quiet || !(await this.#renewKey(key, error))) throw error;
      init.signal?.throwIfAborted();
    }
  }

  async json(path, init) {
    const { response } = await this.send(path, init);
    return response.json();
  }

  postJson(path, body, init) {
    const headers = { "content-type": "application/json" };
    return this.send(path, { ...init, method: "POST", headers, body: JSON.stringify(body) });
  }

  /** True when there is another key to try than the refused one. */
  async #renewKey(refused, error) {
    if (this.#key !== refused) return true; // a request that ran beside this one has asked already
    this.#asking ??= this.#askKey(refused === null ? null : error.message).finally(() => (this.#asking = null));
    const key = await this.#asking;
    if (!key) return false;
    this.#key = key;
    try {
      sessionStorage.setItem(STORED, key);
    } catch {
      // as above
    }
    return true;
  }
}
