// What the prefix cache spared a turn: tokens, and the share of the prompt as a bar.

import { element } from "./element.js";
import { count } from "./figures.js";

/** "1,240 of 1,310 prompt tokens from cache"; then, from servers that tell it, what the usual layout would have cost. */
export function cacheLine(timing) {
  const { prompt_tokens: prompt, cached_tokens: cached, plain_computed_tokens: plain } = timing;
  if (typeof prompt !== "number" || typeof cached !== "number") return null;
  const computed = prompt - cached;
  const lines = [element("p", {}, `${count(cached)} of ${count(prompt)} prompt tokens from cache`), bar(prompt > 0 ? cached / prompt : 0)];
  if (typeof plain === "number")
    lines.push(
      element(
        "p",
        { className: "cache-plain", title: "The usual layout puts each turn's passages into the system message, and so changes the prompt from its beginning on." },
        computed === plain ? `${count(computed)} computed, as in the usual layout` : `${count(computed)} computed; the usual layout would have computed ${count(plain)}`,
      ),
    );
  return element("div", { className: "cache" }, ...lines);
}

function bar(share) {
  const fill = element("span", { className: "cache-fill" });
  fill.style.width = `${100 * share}%`;
  const label = `${Math.floor(100 * share)}% of the prompt from cache`;
  return element("span", { className: "cache-bar", attributes: { role: "img", "aria-label": label } }, fill);
}
