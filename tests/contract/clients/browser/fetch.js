// Posts a chat request from the page and reads the reply as a page does: a stream reader and a text decoder.
async ({ apiKey, body, closeAfterDeltas }) => {
  const control = new AbortController();
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${apiKey}` },
    body: JSON.stringify(body),
    signal: control.signal,
  });
  const seen = { status: response.status, events: [], body: {} };
  if (!response.headers.get("content-type").startsWith("text/event-stream")) {
    seen.body = await response.json();
    return seen;
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let done = false;
  let deltas = 0;
  for (;;) {
    const { value, done: over } = await reader.read();
    if (over) break;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith(":")) continue;
      if (done) throw new Error(`after [DONE]: ${event}`);
      if (!event.startsWith("data: ")) throw new Error(`not an event: ${event}`);
      done = event === "data: [DONE]";
      if (done) continue;
      seen.events.push(JSON.parse(event.slice("data: ".length)));
      deltas += seen.events.at(-1).choices?.some((choice) => choice.delta.content) ? 1 : 0;
      if (closeAfterDeltas && deltas === closeAfterDeltas) {
        control.abort();
        return seen;
      }
    }
  }
  if (rest || !done) throw new Error(`the stream ended in ${JSON.stringify(rest)}, ${done ? "after" : "without"} [DONE]`);
  return seen;
}
