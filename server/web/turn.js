// One turn on the page: the question, its sources, the answer as it grows, how it ended, and how long the first word took.

import { cacheLine } from "./cache.js";
import { copyButton } from "./clipboard.js";
import { element } from "./element.js";
import { GrowingMarkdown } from "./markdown.js";
import { linkMarkers, sourceChips } from "./sources.js";
import { browserLines, ttftFigure, waterfall } from "./waterfall.js";

const CLOCK_MS = 100; // how often the waiting figure is renewed

export class TurnView {
  #turn;
  #citable; // () → the citations that its markers may mean
  #openSource;
  #onDraw;
  #onRetry;
  #say;
  #sources = element("div", { className: "sources-slot" });
  #answer = element("div", { className: "answer prose" });
  #ending = element("div", { className: "ending" });
  #timing = element("aside", { className: "timing" });
  #markdown;
  #clock = 0;

  constructor(turn, { citable, openSource, onDraw, onRetry, say }) {
    this.#turn = turn;
    this.#citable = citable;
    this.#openSource = openSource;
    this.#onDraw = onDraw;
    this.#onRetry = onRetry;
    this.#say = say;
    this.#timing.setAttribute("aria-label", `Latency of answer ${turn.number}`);
    const questionId = `turn-${turn.number}`;
    this.element = element(
      "article",
      { className: "turn", attributes: { "aria-labelledby": questionId } },
      element("h2", { className: "asked", id: questionId }, element("span", { className: "hidden" }, "You asked: "), turn.question),
      element("div", { className: "reply" }, this.#sources, this.#answer, this.#ending),
      this.#timing,
    );
  }

  waiting() {
    this.#sources.replaceChildren();
    this.#answer.replaceChildren();
    this.#ending.replaceChildren();
    this.#markdown = new GrowingMarkdown(this.#answer, this.#onDraw);
    this.#show();
    const since = performance.now();
    const tick = () => {
      const figure = ttftFigure(Math.floor((performance.now() - since) / CLOCK_MS) * CLOCK_MS, { waiting: true });
      figure.setAttribute("aria-hidden", "true");
      this.#timing.replaceChildren(figure);
    };
    tick();
    this.#clock = setInterval(tick, CLOCK_MS);
  }

  citations() {
    if (this.#turn.citations.length === 0) return;
    this.#sources.replaceChildren(sourceChips(this.#turn.citations, this.#openSource));
    this.#onDraw();
  }

  text(text) {
    if (this.#clock) {
      this.#stopClock();
      this.#timing.replaceChildren(ttftFigure(this.#turn.firstTextMs));
      this.#show();
    }
    this.#markdown.append(text);
  }

  /** The finish chunk has come: the server's own figures. */
  timing() {
    const { timing, number } = this.#turn;
    this.#stopClock();
    this.#timing.replaceChildren(ttftFigure(timing.ttft), waterfall(timing, number), ...[cacheLine(timing)].filter(Boolean));
  }

  ended({ retryable }) {
    const turn = this.#turn;
    this.#stopClock();
    this.#markdown.finish();
    linkMarkers(this.#answer, this.#citable(), this.#openSource);
    if (turn.firstTextMs === null && !turn.timing) this.#timing.replaceChildren();
    this.#timing.append(...browserLines(turn).map((line) => element("p", { className: "aside-line" }, line)));
    this.#ending.replaceChildren(...this.#endNote(), this.#actions(retryable));
    this.#show();
    this.#onDraw();
  }

  /** A later turn stands on this one now. */
  settled() {
    this.#ending.querySelector(".retry")?.remove();
  }

  get plainAnswer() {
    return this.#answer.innerText.trim();
  }

  #show() {
    this.element.dataset.state = this.#turn.state;
    this.element.setAttribute("aria-busy", String(this.#turn.open));
  }

  #stopClock() {
    clearInterval(this.#clock);
    this.#clock = 0;
  }

  #endNote() {
    const { state, answer, finishReason, error } = this.#turn;
    const note = (kind, title, detail) => [
      element("p", { className: "note", attributes: { "data-kind": kind } }, element("strong", {}, title), detail ? ` ${detail}` : ""),
    ];
    if (state === "stopped") return note("stopped", "Stopped", answer ? "by you; the answer is incomplete." : "before the first word.");
    if (state === "cut") return note("cut", "Cut short.", `${error.message} ${answer ? "What is shown is incomplete." : ""}`.trim());
    if (state === "failed") {
      const wait = error.retryAfterS ? ` Try again in ${Math.ceil(error.retryAfterS)} s.` : "";
      return note("failed", answer ? "The answer broke off." : "No answer.", error.message + wait);
    }
    if (finishReason === "length") return note("length", "Ended at the length limit;", "the answer may be incomplete.");
    if (finishReason === "content_filter") return note("length", "Ended by the content filter.");
    if (answer === "") return note("length", "The model gave an empty answer.");
    return [];
  }

  #actions(retryable) {
    const row = element("div", { className: "actions" });
    if (retryable) row.append(element("button", { type: "button", className: "quiet retry", onclick: this.#onRetry }, "Retry"));
    if (this.#turn.answer !== "") row.append(copyButton("Copy answer", () => this.#turn.answer, this.#say));
    return row;
  }
}
