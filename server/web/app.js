// The page: an answer at a time, from the composer to the log.

import { Api, ApiError } from "./api.js";
import { prewarm, streamChat, CutShort } from "./chat.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { KeyDialog } from "./key.js";
import { Readiness } from "./readiness.js";
import { Scope } from "./scope.js";
import { PassageDialog } from "./sources.js";
import { bindToggle } from "./theme.js";
import { TurnView } from "./turn.js";
import { TypeAhead } from "./typeahead.js";

const NEAR_END_PX = 80; // a reader this close to the end of the log is following it
const SAID_FOR_MS = 8000;

const byId = (id) => document.getElementById(id);
const scroll = byId("scroll");
const log = byId("log");
const empty = byId("empty");
const latest = byId("latest");

const api = new Api(new KeyDialog().ask);
const passages = new PassageDialog(api);
const conversation = new Conversation();
const composer = new Composer({ onSend: ask, onStop: stop, onType: (draft) => typeAhead.typed(draft) });
const readiness = new Readiness(showReadiness);
const scope = new Scope({ api, onChange: () => running || typeAhead.resume(composer.draft) });
const typeAhead = new TypeAhead({ send: sendAhead, mayGo: () => composer.canSend, onAhead: (ahead) => composer.ahead(ahead) });

let model = null;
let running = null; // AbortController of the answer that runs
let latestView = null;
let following = true;

function ask(question) {
  latestView?.settled();
  empty.hidden = true;
  const turn = conversation.begin(question);
  const view = new TurnView(turn, {
    citable: () => conversation.citationsFor(turn),
    openSource: passages.open,
    onDraw: follow,
    onRetry: () => retry(turn, view),
    say,
  });
  latestView = view;
  log.append(view.element);
  following = true;
  answer(turn, view);
}

function retry(turn, view) {
  if (running || !readiness.ready) return;
  turn.reset();
  composer.focus(); // the button goes away
  answer(turn, view);
}

async function answer(turn, view) {
  const controller = new AbortController();
  running = controller;
  typeAhead.cancel();
  composer.running(true);
  view.waiting();
  follow();
  say("Answering…");
  try {
    const request = await requestFor(turn.question, { signal: controller.signal });
    for await (const event of streamChat(api, request, controller.signal)) take(event, turn, view);
    turn.state = "complete";
    if (!scope.known) scope.load(); // there is a key by now
  } catch (error) {
    turn.error = error;
    turn.state = controller.signal.aborted ? "stopped" : error instanceof CutShort ? "cut" : "failed";
    if (turn.state === "failed" && !(error instanceof ApiError)) console.error(error);
    // The engine may be gone, or another one: ask before the next question does.
    if (turn.state === "cut" || error.status === 0 || error.status === 503) readiness.check();
    if (error.status === 404) {
      model = null;
      scope.load(); // or a store is gone
    }
  }
  if (running === controller) {
    running = null;
    composer.running(false);
    typeAhead.resume(composer.draft);
  }
  view.ended({ retryable: turn.state !== "complete" });
  if (view === latestView) say(spokenEnd(turn, view)); // else a new chat has begun
}

async function requestFor(question, init) {
  return { model: await modelName(init), messages: conversation.messagesFor(question), storeIds: scope.storeIds };
}

async function modelName(init) {
  model ??= (await api.json("/v1/models", init)).data[0].id;
  return model;
}

/** The request that pressing Enter would send now, to be prefilled. */
async function sendAhead(text, signal) {
  try {
    return await prewarm(api, await requestFor(text, { signal, quiet: true }), signal);
  } catch (error) {
    if (error.param === "model") model = null; // another one is served by now
    throw error;
  }
}

function take(event, turn, view) {
  if (event.kind === "citations") {
    turn.citations = event.citations;
    view.citations();
  } else if (event.kind === "text") {
    turn.firstTextMs ??= event.atMs;
    turn.lastTextMs = event.atMs;
    turn.state = "streaming";
    turn.answer += event.text;
    view.text(event.text);
  } else if (event.kind === "timing") {
    turn.timing = event.timing;
    view.timing();
  } else if (event.kind === "usage") {
    turn.usage = event.usage;
  } else {
    turn.finishReason = event.reason;
  }
}

function stop() {
  running?.abort();
}

function newChat() {
  stop(); // and when it has: as after any answer
  conversation.clear();
  typeAhead.cancel();
  if (!running) typeAhead.resume(composer.draft);
  latestView = null;
  log.replaceChildren();
  empty.hidden = false;
  following = true;
  showLatest();
  say("New chat.");
  composer.focus();
}

function spokenEnd(turn, view) {
  const ends = {
    complete: "Answer:",
    stopped: "Stopped. The answer so far:",
    cut: "The answer was cut short. So far:",
    failed: `Error: ${turn.error?.message}`,
  };
  return `${ends[turn.state]} ${view.plainAnswer}`;
}

/** Said politely by a screen reader, then taken away: the log holds it for good. */
function say(text) {
  byId("status").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => (byId("status").textContent = ""), SAID_FOR_MS);
}

function showReadiness({ ready, phase, model: loaded }) {
  model = null; // another model may have been loaded
  byId("readiness").dataset.state = ready ? "ready" : "starting";
  byId("readiness-text").textContent = ready ? (loaded ?? "ready") : phase;
  byId("readiness").title = ready ? `Ready${loaded ? `: ${loaded}` : ""}` : `Starting: ${phase}`;
  composer.ready({ ready, note: `Starting: ${phase}. You can write already; sending opens when the engine is ready.` });
  for (const button of byId("examples").querySelectorAll("button")) button.disabled = !ready;
  typeAhead.resume(composer.draft);
  if (ready) scope.load();
}

function follow() {
  if (following) scroll.scrollTop = scroll.scrollHeight;
  showLatest();
}

function showLatest() {
  latest.hidden = following;
}

scroll.addEventListener("scroll", () => {
  following = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_END_PX;
  showLatest();
});
latest.addEventListener("click", () => {
  following = true;
  follow();
  composer.focus();
});
byId("examples").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || !composer.canSend) return;
  ask(button.textContent);
  composer.focus();
});
byId("new-chat").addEventListener("click", newChat);
byId("documents").addEventListener("click", ({ currentTarget: link }) => {
  link.target = conversation.latest ? "firstword-documents" : ""; // leaving the page would end the conversation
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) stop();
});
bindToggle(byId("theme-toggle"));
readiness.check();
if (matchMedia("(pointer: fine)").matches) composer.focus();
