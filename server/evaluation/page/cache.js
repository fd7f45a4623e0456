"use strict";
// The report on the cache: what each layout of the prompt costs, turn by turn, and what its answers are worth.

const data = JSON.parse(document.getElementById("data").textContent);

const BASE = "system";
const MODES = {
  system: { colour: "var(--mode-system)", dash: null, symbol: "circle", means: "passages in the system message, put together anew on each turn: the usual layout" },
  user: { colour: "var(--mode-user)", dash: "6 3", symbol: "square", means: "passages in the last user message, put together anew on each turn, the history without any" },
  append: { colour: "var(--mode-append)", dash: "2 3", symbol: "triangle", means: "the prompt only grows: a turn adds the passages that are not in it yet; the best first" },
  "append+order": { colour: "var(--mode-append-order)", dash: "8 3 2 3", symbol: "diamond", means: "the same, and on a first turn the passages that other conversations use come first" },
  "type-ahead": { colour: "var(--mode-type-ahead)", dash: null, symbol: "star", means: "the same, and history and passages are prefilled while the user types" },
};
const SHARES = new Set(["cached_share", "f1", "containment", "source_precision", "source_recall", "names_relevant"]);
const COSTS = [["ttft_mean_ms", "TTFT mean, ms"], ["ttft_p50_ms", "TTFT p50, ms"], ["ttft_p95_ms", "TTFT p95, ms"], ["prefill_mean_ms", "prefill, ms"], ["prompt_tokens", "prompt tokens"], ["computed_tokens", "computed tokens"], ["ahead_tokens", "computed while typing"], ["cached_share", "from the cache"], ["tpot_ms", "TPOT, ms"], ["completion_tokens", "answer tokens"]];
const QUALITIES = [["f1", "token F1"], ["containment", "containment"], ["source_precision", "sources that are relevant"], ["source_recall", "relevant passages among the sources"], ["names_relevant", "answers that name a relevant one"]];

const modes = data.order.modes.filter((mode) => data.by_turn.some((row) => row.mode === mode));
const parts = ["turn 1", "turns 2+", "all turns"].filter((part) => data.summaries.some((row) => row.part === part));

function summaryOf(mode, part) {
  return data.summaries.find((row) => row.mode === mode && row.part === part);
}

function modeLegend() {
  return modes.map((mode) => [mode, MODES[mode].colour, MODES[mode].dash ? "dash" : "line"]);
}

/** Rows of one measure by turn, the modes of a turn side by side so that their intervals do not hide each other. */
function pointsOf(measure) {
  return data.by_turn.filter((row) => row.measures[measure]).map((row) => {
    const estimate = row.measures[measure];
    const place = row.turn + (modes.indexOf(row.mode) - (modes.length - 1) / 2) * 0.08;
    return { mode: row.mode, turn: row.turn, n: row.n, place, value: estimate.value, low: estimate.ci?.low, high: estimate.ci?.high };
  });
}

function turnPlot({ id, title, lead, measure, shown, scaleOf, marksOf }) {
  const points = pointsOf(measure);
  const turns = [...new Set(points.map((point) => point.turn))];
  if (!turns.length) return leftOut(id, title, "no turn was finished.");
  const y = scaleOf(points.flatMap((point) => [point.value, point.low, point.high].filter((value) => value !== undefined)));
  const intervals = points.filter((point) => point.low !== undefined);
  return figure({
    id, title, lead, legend: modeLegend(),
    note: intervals.length < points.length ? "Where fewer than ten conversations reach a turn, there is no interval." : null,
    draw: (width) => plot(title, width, {
      height: 320,
      x: { domain: [turns[0] - 0.5, turns.at(-1) + 0.5], ticks: Math.min(turns.at(-1), 20), tickFormat: (at) => (Number.isInteger(at) ? String(at) : ""), label: "turn of the conversation", labelAnchor: "center", labelArrow: "none" },
      y: y.scale,
      marks: [
        marksOf(y),
        Plot.ruleX(intervals, { x: "place", y1: "low", y2: "high", stroke: (point) => MODES[point.mode].colour, strokeWidth: 4, strokeOpacity: 0.35 }),
        modes.map((mode) => Plot.line(points.filter((point) => point.mode === mode), { x: "place", y: "value", stroke: MODES[mode].colour, strokeWidth: 2, strokeDasharray: MODES[mode].dash })),
        modes.map((mode) => Plot.dot(points.filter((point) => point.mode === mode), { x: "place", y: "value", fill: MODES[mode].colour, r: 4, symbol: MODES[mode].symbol })),
        tip(points, { x: "place", y: "value", title: (point) => `${point.mode}, turn ${point.turn}: ${shown(point.value)}${point.low === undefined ? "" : `\n95 %: ${shown(point.low)} to ${shown(point.high)}`}\n${plural(point.n, "turn")}` }),
      ],
    }),
  });
}

function linear(label, domain, tickFormat = tick) {
  return {
    scaleOf: (values) => ({ scale: { domain: domain ?? [0, (d3.max(values) || 1) * 1.05], nice: !domain } }),
    marksOf: () => [Plot.gridY({ ticks: 6 }), Plot.axisY({ label, labelAnchor: "top", labelArrow: "none", ticks: 6, tickFormat }), Plot.ruleY([0], { stroke: "var(--line-strong)" })],
  };
}

function ttftPlot() {
  return turnPlot({ id: "ttft", title: "TTFT by turn", lead: "The median, from the moment the user submits. The bars hold the true median with 95 % confidence.", measure: "ttft_p50_ms", shown: milliseconds, scaleOf: (values) => milliScale("TTFT, median", values), marksOf: milliMarks });
}

function cachedPlot() {
  return turnPlot({ id: "cached", title: "Share of the prompt from the prefix cache", lead: "Of the prompt's tokens when the turn was submitted. What type-ahead prefilled counts as cached then.", measure: "cached_share", shown: percent, ...linear("share from the cache", [0, 1], (share) => `${Math.round(share * 100)} %`) });
}

function promptPlot() {
  return turnPlot({ id: "prompt", title: "Length of the prompt", lead: "What the append-only prompt pays with: passages of earlier turns stay in it.", measure: "prompt_tokens", shown: number, ...linear("tokens") });
}

function computedPlot() {
  return turnPlot({ id: "computed", title: "Tokens computed before the first word", lead: "The prompt without what came from the cache.", measure: "computed_tokens", shown: number, ...linear("tokens") });
}

/** One small plot for each measure of quality: a row per mode, a dot with its interval. */
function qualityPlot(part) {
  const id = `quality-${parts.indexOf(part)}`;
  const title = `Answers, ${part}`;
  const present = QUALITIES.filter(([measure]) => modes.some((mode) => summaryOf(mode, part)?.measures[measure]));
  if (!present.length) return leftOut(id, title, "no answer was held against a reference.");
  return figure({
    id, title,
    lead: "With 95 % intervals. The tables tell each layout's difference to the usual one, turn by turn, and so more sharply.",
    draw: (width) => {
      const each = width >= 760 ? Math.floor((width - 24) / 2) : width;
      return present.map(([measure, name]) => {
        const rows = modes.map((mode) => ({ mode, estimate: summaryOf(mode, part)?.measures[measure] })).filter((row) => row.estimate);
        const most = d3.max(rows, (row) => row.estimate.ci?.high ?? row.estimate.value) || 1;
        return plot(`${name}, ${part}`, each, {
          height: rows.length * 26 + 66, marginLeft: 96, marginRight: 52,
          x: { domain: [0, Math.min(1, most * 1.15)], label: `${name} (${plural(rows[0].estimate.n, "turn")})`, labelAnchor: "center", labelArrow: "none", ticks: 5, tickFormat: (share) => `${number(share * 100)} %`, grid: true },
          y: { domain: rows.map((row) => row.mode), label: null, tickSize: 0 },
          marks: [
            Plot.ruleY(rows.filter((row) => row.estimate.ci), { y: "mode", x1: (row) => row.estimate.ci.low, x2: (row) => row.estimate.ci.high, stroke: (row) => MODES[row.mode].colour, strokeWidth: 4, strokeOpacity: 0.4 }),
            rows.map((row) => Plot.dot([row], { y: "mode", x: row.estimate.value, fill: MODES[row.mode].colour, r: 4.5, symbol: MODES[row.mode].symbol, title: () => `${row.mode}: ${percent(row.estimate.value)}` })),
            Plot.text(rows, { y: "mode", x: (row) => row.estimate.ci?.high ?? row.estimate.value, text: (row) => percent(row.estimate.value), textAnchor: "start", dx: 10, fill: COLOUR.ink }),
          ],
        });
      });
    },
  });
}

function shownValue(measure, value) {
  return SHARES.has(measure) ? percent(value) : number(measure.endsWith("_tokens") ? Math.round(value) : value);
}

function comparison(measure, estimate) {
  if (SHARES.has(measure)) {
    if (estimate.difference === null) return null;
    const points = (share) => `${share < 0 ? "−" : "+"}${number(Math.abs(share * 100))}`;
    return `${points(estimate.difference)} points${estimate.difference_ci ? ` (${points(estimate.difference_ci.low)} to ${points(estimate.difference_ci.high)})` : ""}`;
  }
  if (estimate.ratio === null) return null;
  return `× ${number(estimate.ratio)}${estimate.ratio_ci ? ` (${number(estimate.ratio_ci.low)} to ${number(estimate.ratio_ci.high)})` : ""}`;
}

function valueCell(measure, estimate) {
  if (!estimate) return NOTHING;
  const interval = estimate.ci ? `${shownValue(measure, estimate.ci.low)} to ${shownValue(measure, estimate.ci.high)}` : null;
  const notes = [interval, comparison(measure, estimate)].filter(Boolean);
  return element("span", null, shownValue(measure, estimate.value), notes.map((note) => element("span", { class: "note" }, note)));
}

function partTable(part, measures, caption) {
  const present = measures.filter(([measure]) => modes.some((mode) => summaryOf(mode, part)?.measures[measure]));
  const rows = modes.map((mode) => summaryOf(mode, part)).filter(Boolean);
  return table(`${part}: ${caption}`, ["mode", "turns", ...present.map(([, name]) => name)], rows.map((row) => [row.mode, number(row.turns), ...present.map(([measure]) => valueCell(measure, row.measures[measure]))]));
}

function turnTable() {
  const numbers = [...new Set(data.by_turn.map((row) => row.turn))];
  return table("TTFT by turn, in milliseconds: mean, p50, p95", ["turn", "n", ...modes], numbers.map((turn) => {
    const rows = modes.map((mode) => data.by_turn.find((row) => row.turn === turn && row.mode === mode));
    return [turn, number(rows.find(Boolean).n), ...rows.map((row) => (row ? ["ttft_mean_ms", "ttft_p50_ms", "ttft_p95_ms"].map((measure) => number(row.measures[measure].value)).join(" · ") : NOTHING))];
  }));
}

function card(label, value, note) {
  return element("div", { class: "card" }, element("dt", null, label), element("dd", null, element("span", { class: "value" }, value), note ? element("span", { class: "note" }, note) : null));
}

/** The median of the later turns in each mode, which is what the whole comparison is about. */
function cards() {
  const part = parts.includes("turns 2+") ? "turns 2+" : parts[0];
  if (!part) return null;
  const made = modes.map((mode) => {
    const found = summaryOf(mode, part)?.measures;
    if (!found) return null;
    const ratio = comparison("ttft_p50_ms", found.ttft_p50_ms);
    return card(`TTFT p50, ${part}: ${mode}`, milliseconds(found.ttft_p50_ms.value), `${ratio ? `${ratio} of ${BASE}; ` : ""}${percent(found.cached_share?.value)} from the cache`);
  });
  return element("dl", { class: "cards" }, made.filter(Boolean));
}

function header() {
  const { conditions, order } = data;
  const facts = [["Model", conditions.model], ["Engine", conditions.engine], ["On", conditions.device || conditions.machine], ["Conversations", `${number(data.conversations)}, ${plural(data.turns, "turn")} over all modes`], ["Passages a turn", number(order.top_k)], ["When", data.created.replace("T", " ").replace("+00:00", " UTC")]];
  return element("header", null, element("h1", null, "The cache, turn by turn", element("span", { class: "caret", "aria-hidden": "true" })), element("dl", { class: "facts" }, facts.map(([name, value]) => element("div", null, element("dt", null, name), element("dd", null, value)))));
}

function banners() {
  const made = [];
  const banner = (title, text) => made.push(element("section", { class: "banner", role: "alert" }, element("h2", null, title), element("p", null, text)));
  if (data.interrupted) banner("The run was interrupted", "The figures are of the turns before that.");
  if (data.failures.length) banner(`${plural(data.failures.length, "conversation")} broke off`, data.failures.slice(0, 5).map((failure) => `${failure.mode}, turn ${failure.turn}: ${failure.error}`).join("; "));
  if (data.left_out) banner(`${plural(data.left_out, "turn is", "turns are")} in no figure`, "Another mode has not finished the same turn, and only turns that all modes have finished are compared.");
  return made;
}

function conditionsOfRun() {
  const { conditions, order } = data;
  return factList([
    ["Command", data.command], ["Tool", conditions.tool], ["Python", conditions.python], ["Machine", conditions.machine], ["GPU", conditions.device || null], ["Engine", conditions.engine], ["Model", conditions.model], ["Embedder", conditions.embedder],
    ["Model's context", plural(conditions.max_model_len, "token")], ["KV block", plural(conditions.block_size, "token")], ["Prefix cache", plural(conditions.kv_blocks, "block")], ["Longest answer", plural(order.max_tokens, "token")],
    ["Data", conditions.data], ["Data's sha256", conditions.data_sha256], ["Replies in the history", order.replies === "own" ? "the engine's own" : "the data's reference"],
    ["Typing", order.modes.includes("type-ahead") ? `${number(order.words_per_minute)} words a minute, after ${number(order.think_s)} s` : null], ["Seed", String(order.seed)],
    ["Prewarming", Object.entries(data.prewarms).map(([what, n]) => `${number(n)} ${what}`).join(", ") || null],
    ...Object.entries(conditions.settings).flatMap(([section, fields]) => Object.entries(fields).map(([field, value]) => [`${section}.${field}`, String(value)])),
  ]);
}

function method() {
  const says = [
    ...modes.map((mode) => `${mode}: ${MODES[mode].means}.`),
    "Every mode holds the same conversations with the same engine and the same retrieval, one turn at a time; the order of the modes changes from conversation to conversation. Each has a cache salt of its own, so that no mode finds another's KV blocks.",
    "TTFT runs from the submit to the first text. Retrieval, assembly and the queue are in it.",
    "Only turns that every mode has finished are in the figures.",
    "Intervals hold with 95 % confidence: a bootstrap over whole conversations, the same ones in all modes, so that ratios and differences are paired.",
    "Token F1 and containment compare words with the reference reply, as SQuAD's script does. They do not know what is true.",
    "Sources are held against the passages known to be relevant, which is known of last turns only.",
  ];
  return element("ul", { class: "method" }, says.map((say) => element("li", null, say)));
}

function redrawAll() {
  for (const made of document.querySelectorAll("figure.plot")) made.redraw();
}

function show() {
  const report = document.getElementById("report");
  report.replaceChildren(...[
    header(), ...banners(), cards(),
    ttftPlot(), cachedPlot(), computedPlot(), promptPlot(), ...parts.map(qualityPlot),
    element("h2", null, "In numbers"), element("p", { class: "soft" }, `Below each value its 95 % interval, then how it compares with ${BASE}.`),
    ...parts.flatMap((part) => [partTable(part, COSTS, "cost"), partTable(part, QUALITIES, "answers")]), turnTable(),
    element("h2", null, "Conditions"), conditionsOfRun(),
    element("h2", null, "How it was measured"), method(),
  ].filter(Boolean));
  redrawAll();
  new ResizeObserver(redrawAll).observe(report);
}

show();
document.documentElement.dataset.drawn = "yes";
