// One streamed chat completion: chunks off the wire → what the page shows. And, ahead of it, the same request to be prefilled.

import { ApiError } from "./api.js";
import { readEvents } from "./stream.js";

/** The stream ended without [DONE], or with [DONE] and no finish reason: what came is not the whole answer. */
export class CutShort extends Error {
  constructor() {
    super("The connection ended before the answer did.");
    this.name = "CutShort";
  }
}

/**
 * Yields, in wire order: {kind: "citations", citations}, {kind: "text", text, atMs}, {kind: "timing", timing},
 * {kind: "usage", usage} and, last, {kind: "finish", reason}. `atMs` counts from the moment the request was sent.
 * Throws ApiError, CutShort, or AbortError when `signal` fires.
 */
export async function* streamChat(api, request, signal) {
  const { response, sentAt } = await api.postJson("/v1/chat/completions", bodyOf(request), { signal });
  if (!response.headers.get("content-type")?.startsWith("text/event-stream") || !response.body)
    throw new ApiError("The server did not answer with an event stream.", { status: response.status });

  let reason = null;
  try {
    for await (const payload of readEvents(response.body)) {
      if (payload === "[DONE]") {
        if (reason === null) throw new CutShort();
        yield { kind: "finish", reason };
        return;
      }
      const chunk = parse(payload);
      if (chunk.error) throw new ApiError(chunk.error.message || "The server reported an error.", { status: 200, code: chunk.error.code ?? null });
      const choice = chunk.choices?.[0];
      if (chunk.firstword?.citations) yield { kind: "citations", citations: chunk.firstword.citations };
      if (choice?.delta?.content) yield { kind: "text", text: choice.delta.content, atMs: performance.now() - sentAt };
      if (typeof chunk.firstword?.timing?.ttft === "number") yield { kind: "timing", timing: chunk.firstword.timing };
      if (chunk.usage) yield { kind: "usage", usage: chunk.usage };
      reason = choice?.finish_reason ?? reason;
    }
  } catch (error) {
    if (error instanceof TypeError) throw new CutShort(); // what fetch calls a connection that breaks under a body
    throw error;
  }
  throw new CutShort();
}

/** Resolves to {status: "started" | "dropped", reason}; throws ApiError, and asks nobody for a key. */
export async function prewarm(api, request, signal) {
  const { response } = await api.postJson("/v1/chat/prewarm", bodyOf(request), { signal, quiet: true, priority: "low" });
  return response.json();
}

/** `storeIds`: the vector stores to answer from; null: the server's own choice. */
function bodyOf({ model, messages, storeIds }) {
  const retrieval = storeIds && { retrieval: { vector_store_ids: storeIds } };
  return { model, messages, stream: true, stream_options: { include_usage: true }, ...retrieval };
}

function parse(payload) {
  try {
    return JSON.parse(payload);
  } catch {
    throw new ApiError("The server sent an event that cannot be read.", { status: 200 });
  }
}
