// The words of a query where they stand in a passage, whatever their case, accents and plain endings.

import { element } from "./element.js";

// Too common to point at anything; English, as the stemming of the lexical index.
const COMMON = new Set(
  "a an and are as at be by can do does for from had has have how i if in is it its me my of on or our so that the their them then there they this to was we were what when where which who why will with you your".split(" "),
);
const ENDING = /(?:ings?|edly|ed|ies|es|ly|s|e|y)$/;
const SHORTEST_STEM = 3;

const segmenter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

/** [{word, start}] of the text. */
function wordsOf(text) {
  if (segmenter) return [...segmenter.segment(text)].filter(({ isWordLike }) => isWordLike).map(({ segment, index }) => ({ word: segment, start: index }));
  return [...text.matchAll(/[\p{L}\p{N}\p{M}]+/gu)].map((match) => ({ word: match[0], start: match.index }));
}

function stem(word) {
  const folded = word.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const bare = folded.replace(ENDING, "");
  return bare.length >= SHORTEST_STEM ? bare : folded;
}

/** What `highlighted` looks for; all words when every one is common. */
export function stemsOf(query) {
  const words = wordsOf(query).map(({ word }) => word);
  const telling = words.filter((word) => !COMMON.has(word.toLowerCase()));
  return new Set((telling.length > 0 ? telling : words).map(stem));
}

/** The text as nodes, its matching words in `mark`. */
export function highlighted(text, stems) {
  const nodes = [];
  let end = 0;
  for (const { word, start } of wordsOf(text)) {
    if (!stems.has(stem(word))) continue;
    if (start > end) nodes.push(text.slice(end, start));
    nodes.push(element("mark", {}, word));
    end = start + word.length;
  }
  if (end < text.length) nodes.push(text.slice(end));
  return nodes;
}
