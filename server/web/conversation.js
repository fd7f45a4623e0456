// The conversation, in memory only: what was asked, what was answered, and what the server needs to hear again.

/**
 * state: "waiting" (no word yet) | "streaming" | "complete" | "stopped" (by the user) | "cut" (by the connection) | "failed" (by an error).
 */
export class Turn {
  answer = "";
  state = "waiting";
  citations = [];
  timing = null; // the server's, from the finish chunk
  usage = null;
  finishReason = null;
  firstTextMs = null; // since the request was sent, by this browser's clock
  lastTextMs = null;
  error = null;

  constructor(number, question) {
    this.number = number;
    this.question = question;
  }

  get open() {
    return this.state === "waiting" || this.state === "streaming";
  }

  /** Back to the moment before it was sent. */
  reset() {
    Object.assign(this, new Turn(this.number, this.question));
  }
}

export class Conversation {
  #turns = [];
  #asked = 0;

  get latest() {
    return this.#turns.at(-1) ?? null;
  }

  begin(question) {
    const turn = new Turn(++this.#asked, question);
    this.#turns.push(turn);
    return turn;
  }

  /**
   * The request's messages: every earlier turn that has an answer, whole or partial, then this question.
   * Answers go back to the character as they came: by them the server knows the conversation, and finds what it has computed of it.
   */
  messagesFor(question) {
    return [
      ...this.#answered.flatMap((turn) => [
        { role: "user", content: turn.question },
        { role: "assistant", content: turn.answer },
      ]),
      { role: "user", content: question },
    ];
  }

  /** Passages are numbered through the conversation, and an answer may name an earlier turn's. The turn's own come last: they win. */
  citationsFor(turn) {
    const earlier = this.#answered.filter(({ number }) => number < turn.number);
    return [...earlier, turn].flatMap(({ citations }) => citations);
  }

  get #answered() {
    return this.#turns.filter((turn) => !turn.open && turn.answer !== "");
  }

  clear() {
    this.#turns = [];
  }
}
