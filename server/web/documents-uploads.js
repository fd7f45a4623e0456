// Files on their way to the server, a few at a time: sent, then attached to the store that they were dropped into.

import { size } from "./figures.js";

const AT_ONCE = 3; // the server takes eight of one API key
const BUSY_S = 2; // after a refusal that does not say how long
const MOST_REFUSALS = 8;
const LONGEST_ATTRIBUTE = 512;
const HOPELESS = new Set([400, 403, 413]); // it would be refused again

class Hopeless extends Error {}

/** state: "waiting" | "sending" | "attaching" | "failed". */
class Upload {
  state = "waiting";
  sent = 0; // of 1
  note = "";
  forbidden = false; // this key may not add to this store
  hopeless = false; // the same file would be refused again
  refusals = 0; // by a busy server
  fileId = null;
  controller = null;

  constructor(number, storeId, file, path) {
    this.key = `upload-${number}`;
    this.storeId = storeId;
    this.file = file;
    this.path = path;
  }
}

export class Uploads {
  #client;
  #onChange; // (upload): of its state
  #onAttached; // (file in the store)
  #uploads = [];
  #count = 0;
  #refusedBytes = Infinity; // the smallest file that the server has refused as too large
  #notBeforeMs = 0;

  constructor({ client, onChange, onAttached }) {
    this.#client = client;
    this.#onChange = onChange;
    this.#onAttached = onAttached;
    addEventListener("beforeunload", (event) => this.running && event.preventDefault());
  }

  get running() {
    return this.#uploads.some(({ state }) => state !== "failed");
  }

  of(storeId) {
    return this.#uploads.filter((upload) => upload.storeId === storeId);
  }

  /** `found`: [{file, path}], the path within the folder that was chosen, or empty. */
  add(storeId, found) {
    for (const { file, path } of found) {
      const upload = new Upload(++this.#count, storeId, file, path);
      this.#uploads.push(upload);
      this.#onChange(upload);
    }
    this.#next();
  }

  retry(upload) {
    Object.assign(upload, { state: "waiting", sent: 0, note: "" });
    this.#onChange(upload);
    this.#next();
  }

  /** Stops it where it is, or takes a failed one away. */
  cancel(upload) {
    upload.controller?.abort();
    this.#uploads = this.#uploads.filter((other) => other !== upload);
    this.#onChange(upload);
    if (upload.fileId !== null) this.#client.deleteFile(upload.fileId).catch(() => {}); // it came whole, and nobody asked for it
    this.#next();
  }

  #next() {
    const pauseMs = this.#notBeforeMs - performance.now();
    if (pauseMs > 0) {
      setTimeout(() => this.#next(), pauseMs);
      return;
    }
    const running = this.#uploads.filter(({ state }) => state === "sending" || state === "attaching").length;
    const waiting = this.#uploads.filter(({ state }) => state === "waiting");
    for (const upload of waiting.slice(0, Math.max(0, AT_ONCE - running))) this.#run(upload);
  }

  async #run(upload) {
    const controller = new AbortController();
    upload.controller = controller;
    try {
      const attached = await this.#bring(upload, controller.signal);
      if (controller.signal.aborted) return;
      this.#uploads = this.#uploads.filter((other) => other !== upload);
      this.#onAttached(attached);
    } catch (error) {
      if (controller.signal.aborted) return;
      this.#refused(upload, error);
      this.#onChange(upload);
    }
    this.#next();
  }

  async #bring(upload, signal) {
    const { file } = upload;
    if (file.size === 0) throw new Hopeless("The file is empty.");
    if (file.size >= this.#refusedBytes) throw new Hopeless(`It was not sent: the server has refused a file of ${size(this.#refusedBytes)} as too large.`);
    if (upload.fileId === null) {
      this.#to(upload, "sending");
      const onProgress = (sent, of) => {
        upload.sent = of > 0 ? sent / of : 0;
        this.#onChange(upload);
      };
      upload.fileId = await this.#client.upload(file, { onProgress, signal });
      if (signal.aborted) {
        this.#client.deleteFile(upload.fileId).catch(() => {}); // as in cancel()
        throw signal.reason;
      }
    }
    this.#to(upload, "attaching");
    const path = [...upload.path].slice(0, LONGEST_ATTRIBUTE).join("");
    return this.#client.attach(upload.storeId, upload.fileId, path === "" ? {} : { path });
  }

  #to(upload, state) {
    upload.state = state;
    upload.note = "";
    this.#onChange(upload);
  }

  #refused(upload, error) {
    const { file } = upload;
    if (error.status === 429 && ++upload.refusals <= MOST_REFUSALS) {
      const waitS = error.retryAfterS ?? BUSY_S;
      this.#notBeforeMs = performance.now() + waitS * 1000;
      Object.assign(upload, { state: "waiting", sent: 0, note: "The server is busy; it will be tried again." });
      return;
    }
    upload.state = "failed";
    upload.forbidden = error.status === 403;
    upload.hopeless = error instanceof Hopeless || (HOPELESS.has(error.status) && error.code !== "quota_exceeded");
    upload.note = error.message;
    if (error.status === 413) this.#refusedBytes = Math.min(this.#refusedBytes, file.size);
    if (error.status === 0 && upload.sent > 0)
      upload.note = "The connection broke while the file was sent: it may be larger than the server takes, or have changed on this computer meanwhile.";
  }
}
