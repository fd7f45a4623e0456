// The Vercel AI SDK, over either of its providers: `openai` (by `.chat(model)`) or `openai-compatible`.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, Output, streamText, tool } from "ai";
import { Answer, emptySeen, retyped, serve, versionOf } from "./protocol.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const PROVIDER = process.argv[2];

// The provider for OpenAI itself sends no field that it does not know, so one is put in on the way out.
const withField = (name) => (url, options) =>
  fetch(url, { ...options, body: JSON.stringify({ ...JSON.parse(options.body), [name]: 1 }) });

const PROVIDERS = {
  openai: {
    package: "@ai-sdk/openai",
    model: (ask, options = {}) =>
      createOpenAI({ baseURL: ask.base_url, apiKey: ask.api_key, ...options }).chat(ask.model),
    unknownParameter: (ask) => ({ model: PROVIDERS.openai.model(ask, { fetch: withField(ask.parameter) }) }),
  },
  "openai-compatible": {
    package: "@ai-sdk/openai-compatible",
    model: (ask, options = {}) =>
      createOpenAICompatible({
        name: "firstword",
        baseURL: ask.base_url,
        apiKey: ask.api_key,
        supportsStructuredOutputs: true,
        ...options,
      })(ask.model),
    unknownParameter: (ask) => ({ providerOptions: { firstword: { [ask.parameter]: 1 } } }),
  },
};
const provider = PROVIDERS[PROVIDER];
const user = (content) => ({ role: "user", content });

function asked(ask, options) {
  return {
    model: provider.model(ask),
    messages: [user(ask.questions[0])],
    maxOutputTokens: ask.max_tokens ?? undefined,
    ...options,
  };
}

/** Stream an answer to its end; an error in it is thrown. Returns the SDK's result. */
async function gather(ask, seen, options = {}) {
  const result = streamText({
    ...asked(ask, options),
    include: { rawChunks: true },
    onError: () => {},
  });
  for await (const part of result.stream) {
    if (part.type === "error") throw part.error;
    if (part.type === "raw") Object.assign(seen.firstword, part.rawValue.firstword);
    if (part.type === "text-delta") {
      seen.text += part.text;
      seen.deltas += part.text ? 1 : 0;
    }
    if (part.type === "reasoning-delta") seen.reasoning += part.text;
    if (part.type === "finish-step") finish(seen, part);
    if (part.type === "tool-call") seen.tool_calls.push(callOf(part));
    if (seen.deltas && seen.deltas === ask.close_after_deltas) return result;
  }
  return result;
}

function callOf({ toolCallId, toolName, input }) {
  return { id: toolCallId, name: toolName, arguments: input };
}

/** What a step ended with, streamed or not. A count that the wire did not carry is undefined. */
function finish(seen, { rawFinishReason, usage, providerMetadata }) {
  seen.finish_reason = rawFinishReason ?? null;
  if (usage.totalTokens !== undefined) {
    seen.usage = {
      prompt_tokens: usage.inputTokens,
      completion_tokens: usage.outputTokens,
      total_tokens: usage.totalTokens,
      cached_tokens: usage.inputTokenDetails.cacheReadTokens ?? 0,
    };
  }
  for (const { token, logprob, top_logprobs } of providerMetadata?.openai?.logprobs ?? []) {
    seen.logprobs.push({ token, logprob, n_top: top_logprobs.length });
  }
}

async function whole(ask, seen, options = {}) {
  const result = await generateText({ ...asked(ask, options), include: { responseBody: true } });
  seen.text = result.text;
  seen.reasoning = result.reasoningText ?? "";
  seen.tool_calls = result.toolCalls.map(callOf);
  Object.assign(seen.firstword, result.response.body?.firstword);
  finish(seen, result);
  return result;
}

/** The SDK's own response messages go back: of a whole answer, then of a streamed one. */
async function conversation(ask, seen) {
  const [first, second, third] = ask.questions;
  const messages = [user(first)];
  messages.push(...(await whole(ask, emptySeen(), { messages })).responseMessages, user(second));
  messages.push(...(await (await gather(ask, emptySeen(), { messages })).responseMessages), user(third));
  await whole(ask, seen, { messages });
}

/** The text alone was kept, and goes back as content parts. */
async function retold(ask, seen) {
  const [first, second] = ask.questions;
  const said = (role, text) => ({ role, content: [{ type: "text", text }] });
  const messages = [said("user", first)];
  const { text } = await whole(ask, emptySeen(), { messages });
  messages.push(said("assistant", retyped(text)), said("user", second));
  await whole(ask, seen, { messages });
}

async function toolCalls(ask, seen) {
  const { name, description, parameters } = ask.tool;
  const results = [...ask.tool_results];
  const execute = () => results.shift() ?? "";
  const tools = { [name]: tool({ description, inputSchema: jsonSchema(parameters), execute }) };
  const messages = [user(ask.questions[0])];
  const result = await gather(ask, seen, { messages, tools });
  messages.push(...(await result.responseMessages));
  const followUp = emptySeen();
  await gather(ask, followUp, { messages, tools });
  seen.follow_up = { finish_reason: followUp.finish_reason, tool_calls: followUp.tool_calls };
}

async function structured(ask, seen) {
  const result = await gather(ask, seen, { output: Output.object({ schema: Answer }) });
  seen.parsed = await result.output;
}

async function abandoned(ask, seen) {
  const control = new AbortController();
  await gather(ask, seen, { abortSignal: control.signal });
  control.abort();
}

function describe(error) {
  const last = error.lastError ?? error; // of a RetryError
  const body = last.data?.error ?? last;
  const { code = null, param = null } = body;
  const type = last.name ?? last.constructor.name;
  return { type, status: last.statusCode ?? null, code, param, message: last.message, trace: error.stack ?? "" };
}

await serve(
  versionOf("ai", provider.package),
  {
    streamed: gather,
    streamed_with_usage: (ask, seen) =>
      gather(ask, seen, { model: provider.model(ask, { includeUsage: true }) }),
    whole,
    conversation,
    retold,
    unknown_parameter: (ask, seen) => gather(ask, seen, provider.unknownParameter(ask)),
    tool_calls: toolCalls,
    logprobs: (ask, seen) => gather(ask, seen, { providerOptions: { openai: { logprobs: 2 } } }),
    structured,
    reasoning: gather,
    abandoned,
  },
  describe,
);
