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
  send(path, { quiet = false, ...init } = {}) {
    const ask = async (authorization) => {
      try {
        return await fetch(path, { ...init, headers: { ...init.headers, ...authorization }, credentials: "same-origin", cache: "no-store" });
      } catch (error) {
        if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
        throw new ApiError("The server cannot be reached.");
      }
    };
    return this.#withKey(ask, { quiet, signal: init.signal });
  }

  /** Posts a form and resolves to the JSON that comes back; `onProgress(bytesSent, bytesInAll)`. Throws as `send` does. */
  async postForm(path, form, { onProgress, signal }) {
    const { response } = await this.#withKey((authorization) => sendForm(path, form, { authorization, onProgress, signal }), { quiet: false, signal });
    return response.json();
  }

  async #withKey(ask, { quiet, signal }) {
    for (;;) {
      const key = this.#key;
      const sentAt = performance.now();
      const response = await ask(key ? { authorization: `Bearer ${key}` } : {});
      if (response.ok) return { response, sentAt };
      const error = await ApiError.of(response);
      if (response.status !== 401 || quiet || !(await this.#renewKey(key, error))) throw error;
      signal?.throwIfAborted();
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

/** By XMLHttpRequest: fetch does not tell how much of a body is sent. */
function sendForm(path, form, { authorization, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(authorization)) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded, total);
    request.onload = () => {
      const headers = { "retry-after": request.getResponseHeader("retry-after") ?? "" };
      resolve(new Response(request.responseText, { status: request.status, statusText: request.statusText, headers }));
    };
    request.onerror = () => reject(new ApiError("The connection broke before the server answered."));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(form);
  });
}
