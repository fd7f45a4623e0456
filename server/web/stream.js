// Server-sent events over fetch: bytes in any chunking → the payload of each event.
// Source: WHATWG HTML, 9.2.6 "Interpreting an event stream".
//
// Divergences: `event:`, `id:` and `retry:` are ignored (the chat endpoint sends none of them); an event without data is skipped.

export class SseDecoder {
  #utf8 = new TextDecoder("utf-8"); // in stream mode it holds back half a character and drops a byte order mark
  #rest = ""; // an unfinished line
  #data = []; // data lines of the event being read

  /** Bytes in, payloads of the events they complete out. */
  push(bytes) {
    this.#rest += this.#utf8.decode(bytes, { stream: true });
    const payloads = [];
    let start = 0;
    for (let at = 0; at < this.#rest.length; at++) {
      const character = this.#rest[at];
      if (character !== "\n" && character !== "\r") continue;
      // A CR at the very end may be half of a CRLF: wait for the next chunk.
      if (character === "\r" && at + 1 === this.#rest.length) break;
      const payload = this.#line(this.#rest.slice(start, at));
      if (payload !== null) payloads.push(payload);
      if (character === "\r" && this.#rest[at + 1] === "\n") at++;
      start = at + 1;
    }
    this.#rest = this.#rest.slice(start);
    return payloads;
  }

  /** The end of the stream: only an event whose closing CR was held back may still come; an unfinished one is dropped. */
  end() {
    this.#rest += this.#utf8.decode();
    if (this.#rest !== "\r") return [];
    this.#rest = "";
    const payload = this.#line("");
    return payload === null ? [] : [payload];
  }

  #line(line) {
    if (line === "") {
      const lines = this.#data;
      this.#data = [];
      return lines.length > 0 ? lines.join("\n") : null;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return null; // a comment: the heartbeat
    const field = colon < 0 ? line : line.slice(0, colon);
    if (field !== "data") return null;
    const value = colon < 0 ? "" : line.slice(colon + 1);
    this.#data.push(value.startsWith(" ") ? value.slice(1) : value);
    return null;
  }
}

/** The payloads of a response body, one by one; leaving the loop early cancels the body. */
export async function* readEvents(body) {
  const reader = body.getReader();
  const decoder = new SseDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      yield* done ? decoder.end() : decoder.push(value);
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {}); // after an abort it is cancelled already
  }
}
