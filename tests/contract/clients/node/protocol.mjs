// What both Node programs share: asks come in as JSON lines, what the client saw goes out as JSON lines.
// The fields are those of `Ask` and `Seen` in ../python/protocol.py.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { z } from "zod";

export const Answer = z.object({ answer: z.string(), notes: z.array(z.string()) });

export function emptySeen() {
  return {
    text: "",
    deltas: 0,
    finish_reason: null,
    usage: null,
    reasoning: "",
    tool_calls: [],
    choices: [],
    logprobs: [],
    parsed: null,
    firstword: {},
    found: [],
    follow_up: null,
    error: null,
  };
}

export function versionOf(...packages) {
  const found = packages.map((name) => {
    const file = new URL(`node_modules/${name}/package.json`, import.meta.url);
    return `${name} ${JSON.parse(readFileSync(file, "utf8")).version}`;
  });
  return [...found, `Node ${process.versions.node}`].join(", ");
}

/** A reply as a text area gives it back: other line breaks, other white space around it. */
export const retyped = (text) => text.trim().replace(/\r\n?/g, "\n") + "\n";

/** Say who one is, then answer asks until stdin ends. What the client throws becomes `error`. */
export async function serve(version, scenarios, describe) {
  say({ version });
  for await (const line of createInterface({ input: process.stdin })) {
    const ask = JSON.parse(line);
    const seen = emptySeen();
    try {
      await scenarios[ask.scenario](ask, seen);
    } catch (error) {
      seen.error = describe(error);
    }
    say(seen);
  }
}

// ASCII only: the pipe carries no text that a line reader could split.
function say(fields) {
  const text = JSON.stringify(fields).replace(
    /[\u0080-\uffff]/g,
    (unit) => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0"),
  );
  process.stdout.write(text + "\n");
}
