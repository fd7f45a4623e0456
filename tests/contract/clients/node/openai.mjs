// The OpenAI Node SDK.
import OpenAI, { toFile } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { Answer, emptySeen, retyped, serve, versionOf } from "./protocol.mjs";

const client = (ask) => new OpenAI({ baseURL: ask.base_url, apiKey: ask.api_key });
const user = (content) => ({ role: "user", content });
const tools = (ask) => [{ type: "function", function: ask.tool }];

function asked(ask, fields) {
  const limit = ask.max_tokens ? { max_tokens: ask.max_tokens } : {};
  return { model: ask.model, messages: [user(ask.questions[0])], ...limit, ...fields };
}

async function stream(ask, seen, fields = {}) {
  for await (const chunk of await client(ask).chat.completions.create(asked(ask, { stream: true, ...fields }))) {
    take(seen, chunk, "delta");
  }
  parseArguments(seen);
}

async function whole(ask, seen, fields = {}) {
  take(seen, await client(ask).chat.completions.create(asked(ask, fields)), "message");
  parseArguments(seen);
}

/** A chunk of a stream (`part` is "delta") or a whole answer ("message"). */
function take(seen, chunk, part) {
  Object.assign(seen.firstword, chunk.firstword);
  if (chunk.usage) {
    const { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details } = chunk.usage;
    const cached_tokens = prompt_tokens_details.cached_tokens;
    seen.usage = { prompt_tokens, completion_tokens, total_tokens, cached_tokens };
  }
  for (const choice of chunk.choices) {
    const { content, reasoning_content, tool_calls = [] } = choice[part];
    seen.choices[choice.index] = (seen.choices[choice.index] ?? "") + (content ?? "");
    seen.deltas += content ? 1 : 0;
    seen.text = seen.choices[0] ?? "";
    seen.reasoning += reasoning_content ?? "";
    seen.finish_reason = choice.finish_reason ?? seen.finish_reason;
    for (const { token, logprob, top_logprobs } of choice.logprobs?.content ?? []) {
      seen.logprobs.push({ token, logprob, n_top: top_logprobs.length });
    }
    tool_calls.forEach((call, position) => takeCall(seen, call, call.index ?? position));
  }
}

function takeCall(seen, call, index) {
  seen.tool_calls[index] ??= { id: call.id, name: call.function.name, arguments: "" };
  seen.tool_calls[index].arguments += call.function.arguments ?? "";
}

function parseArguments(seen) {
  for (const call of seen.tool_calls) call.arguments = JSON.parse(call.arguments);
}

/** The SDK's own message objects go back: of `create`, then of the `stream` helper. */
async function conversation(ask, seen) {
  const [first, second, third] = ask.questions;
  const { completions } = client(ask).chat;
  const messages = [user(first)];
  const answer = await completions.create({ model: ask.model, messages });
  messages.push(answer.choices[0].message, user(second));
  const runner = completions.stream({ model: ask.model, messages });
  messages.push(await runner.finalMessage(), user(third));
  take(seen, await completions.create({ model: ask.model, messages }), "message");
}

/** The text alone was kept, and goes back as content parts. */
async function retold(ask, seen) {
  const [first, second] = ask.questions;
  const { completions } = client(ask).chat;
  const said = (role, text) => ({ role, content: [{ type: "text", text }] });
  const messages = [said("user", first)];
  const answer = await completions.create({ model: ask.model, messages });
  messages.push(said("assistant", retyped(answer.choices[0].message.content)), said("user", second));
  take(seen, await completions.create({ model: ask.model, messages }), "message");
}

/** Streamed chunk by chunk; then the SDK's own loop calls the function and sends its results back. */
async function toolCalls(ask, seen) {
  await stream(ask, seen, { tools: tools(ask) });
  const results = [...ask.tool_results];
  const runner = client(ask).chat.completions.runTools(
    {
      model: ask.model,
      messages: [user(ask.questions[0])],
      stream: true,
      tools: [{ type: "function", function: { ...ask.tool, parse: JSON.parse, function: () => results.shift() ?? "" } }],
    },
    { maxChatCompletions: 2 },
  );
  await runner.done();
  const followUp = emptySeen();
  take(followUp, runner.allChatCompletions().at(-1), "message");
  parseArguments(followUp);
  seen.follow_up = { finish_reason: followUp.finish_reason, tool_calls: followUp.tool_calls };
}

/** The message with its parsed object goes back, and is answered. */
async function structured(ask, seen) {
  const { completions } = client(ask).chat;
  const completion = await completions.parse(asked(ask, { response_format: zodResponseFormat(Answer, "answer") }));
  take(seen, completion, "message");
  const { message } = completion.choices[0];
  seen.parsed = message.parsed;
  const messages = [user(ask.questions[0]), message, user(ask.questions[0])];
  await completions.create({ model: ask.model, messages });
}

async function abandoned(ask, seen) {
  for await (const chunk of await client(ask).chat.completions.create(asked(ask, { stream: true }))) {
    take(seen, chunk, "delta");
    if (seen.deltas === ask.close_after_deltas) break;
  }
}

/** One file by itself, the others as a batch; then searched for, and all of it deleted. */
async function documents(ask, seen) {
  const sdk = client(ask);
  const { files, fileBatches } = sdk.vectorStores;
  const store = await sdk.vectorStores.create({ name: ask.scenario });
  const [first, ...others] = await Promise.all(
    Object.entries(ask.documents).map(([name, text]) => toFile(Buffer.from(text), name)),
  );
  const polling = { pollIntervalMs: 20 };
  const uploaded = await sdk.files.create({ file: first, purpose: "assistants" });
  const attributes = { kind: "first", year: 2024, public: true };
  await files.createAndPoll(store.id, { file_id: uploaded.id, attributes }, polling);
  await fileBatches.uploadAndPoll(store.id, { files: others }, polling);
  const query = ask.questions[0];
  for await (const { filename, content, attributes } of sdk.vectorStores.search(store.id, { query })) {
    seen.found.push({ filename, text: content.map((part) => part.text).join(""), attributes });
  }
  const filters = { type: "eq", key: "kind", value: "first" };
  for await (const { filename } of sdk.vectorStores.search(store.id, { query, filters })) seen.choices.push(filename);
  const listed = [];
  for await (const { id } of files.list(store.id, { limit: 1 })) listed.push(id);
  for (const id of listed) await sdk.files.delete(id);
  await sdk.vectorStores.delete(store.id);
}

function describe(error) {
  const { status = null, code = null, param = null, message, stack } = error;
  return { type: error.constructor.name, status, code, param, message, trace: stack };
}

await serve(
  versionOf("openai"),
  {
    streamed: stream,
    streamed_with_usage: (ask, seen) => stream(ask, seen, { stream_options: { include_usage: true } }),
    whole,
    conversation,
    retold,
    unknown_parameter: (ask, seen) => stream(ask, seen, { [ask.parameter]: 1 }),
    tool_calls: toolCalls,
    choices: (ask, seen) => stream(ask, seen, { n: 2 }),
    logprobs: (ask, seen) => stream(ask, seen, { logprobs: true, top_logprobs: 2 }),
    structured,
    reasoning: stream,
    abandoned,
    documents,
  },
  describe,
);
