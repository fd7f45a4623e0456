"use strict";
// The tables of the report: the same figures as numbers, and the conditions under which they hold.

function table(caption, heads, rows, kind = "") {
  const cell = (value, at) => element(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: at === 0 ? "text" : null }, value instanceof Node ? value : String(value));
  return element("div", { class: `scroll ${kind}`, role: "region", tabindex: "0", "aria-label": caption }, element(
    "table", null,
    element("caption", null, caption),
    element("thead", null, element("tr", null, heads.map((head, at) => element("th", { scope: "col", class: at === 0 ? "text" : null }, head)))),
    element("tbody", null, rows.map((row) => element("tr", null, row.map(cell)))),
  ));
}

const DISTRIBUTION = ["n", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"];

function distributionCells(found) {
  if (!found) return [0, ...Array(7).fill(NOTHING)];
  return [number(found.n), ...["mean", "p50", "p90", "p95", "p99", "p999", "max"].map((at) => number(found[at]))];
}

function turnTable(summary) {
  if (!summary.ttft_by_turn.length) return null;
  return table("TTFT by turn, in milliseconds", ["turn", ...DISTRIBUTION, "prompt tokens (mean)", "from the cache"], summary.ttft_by_turn.map((row) => [row.turn, ...distributionCells(row.ttft_ms), row.prompt_tokens === null ? NOTHING : number(Math.round(row.prompt_tokens)), percent(row.cached_share)]));
}

function latencyTable(summary) {
  const rows = [
    ["TTFT", "ttft_ms"], ["TTFT from when it was sent", "sent_ttft_ms"], ["TTFT, says the server", "server_ttft_ms"], ["network and client, turn by turn", "client_minus_server_ttft_ms"],
    ["first byte", "ttfb_ms"], ["ITL", "itl_ms"], ["TPOT", "tpot_ms"], ["end to end", "e2e_ms"],
  ];
  return table("Latencies, in milliseconds", ["", ...DISTRIBUTION], rows.filter(([, field]) => summary[field]).map(([name, field]) => [name, ...distributionCells(summary[field])]));
}

const MEANING = {
  http_error: "a status other than 200, 429 and 503", refused: "429 or 503: the server had no room", stream_error: "an error event after the headers",
  truncated: "the stream ended without finish_reason or [DONE]", malformed: "not HTTP, not an event stream, or not a chunk", connection: "no response: refused, reset, name or TLS",
  timeout: "the turn took longer than allowed", unfinished: "the run was stopped while it was under way",
};

function errorTable(summary) {
  const counts = [
    [summary.warmup_turns, "in the warm-up", `of which ${number(summary.warmup_failed)} failed`], [summary.not_sent, "not sent", "a failed turn before it, or the end of the run"],
    [summary.unfinished, "unfinished", "under way when the run was stopped"], [summary.without_token, "ended well without any token", "so there is no TTFT"],
    [summary.turns_counting_deltas, "with tokens counted by deltas", "the server sent no usage"],
  ].filter(([count]) => count);
  const list = counts.length ? element("ul", { class: "counts" }, counts.map(([count, what, why]) => element("li", null, `${plural(count, "turn")} ${what}: ${why}.`))) : null;
  if (!summary.errors.length) return [element("p", null, "No measured turn failed."), list];
  const rows = summary.errors.map((kind) => [element("span", null, kind.outcome, element("span", { class: "note" }, MEANING[kind.outcome] ?? "")), kind.status ?? NOTHING, number(kind.count), element("span", { class: "example" }, kind.example || NOTHING)]);
  return [table("Failed turns by kind", ["kind", "status", "turns", "an example"], rows, "errors"), list];
}

function phaseTable(stage) {
  const { phases: rows } = stage.plots;
  if (!rows.length) return null;
  const total = d3.sum(rows[0].parts, (part) => part.ms);
  return table("Phases of all turns, mean", ["phase", "ms", "share"], rows[0].parts.map((part) => [part.name, number(part.ms), percent(total ? part.ms / total : null)]), "narrow");
}

function clientTable(client) {
  const latenesses = [["sent late", client.late_ms], ["waited for a slot", client.held_ms], ["loop lag", client.loop_lag_ms], ["bytes waited to be read", client.read_lag_ms]].filter(([, found]) => found);
  const facts = [["Measuring processes", number(client.processes)], ["Time stamps by", client.stamped_by === "kernel" ? "the kernel, when bytes came" : "the measuring process, when it read"], ["CPU of the busiest, of one core", client.busy_poll ? "all of it: --busy-poll" : percent(client.cpu_share)], ["CPU per event", client.cpu_us_per_event === null ? NOTHING : `${number(client.cpu_us_per_event)} µs`], ["CPU time taken by the host", client.stolen_share === null ? "the system does not say" : percent(client.stolen_share)]];
  return [latenesses.length ? table("The client's own lateness, in milliseconds", ["", ...DISTRIBUTION], latenesses.map(([name, found]) => [name, ...distributionCells(found)])) : null, factList(facts)];
}

function factList(facts) {
  return element("dl", { class: "pairs" }, facts.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => element("div", null, element("dt", null, name), element("dd", null, String(value)))));
}

function stageTable(data, choose) {
  const load = (stage) => number(stage.rate_per_s ?? stage.concurrency);
  const verdict = (stage) => (stage.verdicts.length ? element("span", { class: stage.verdicts.every((one) => one.met) ? "word met" : "word missed" }, stage.verdicts.every((one) => one.met) ? "✓ met" : "✗ missed") : NOTHING);
  return table("Stages; latencies in milliseconds", ["stage", "load", "SLO", "TTFT p50", "TTFT p99", "ITL p50", "ITL p99", "turns/s", "tokens/s", "errors", "refusals", "client"], data.stages.map((stage, at) => {
    const { summary } = stage;
    const button = element("button", { type: "button", class: "link" }, stage.name);
    button.addEventListener("click", () => choose(at));
    return [button, load(stage), verdict(stage), number(summary.ttft_ms?.p50), number(summary.ttft_ms?.p99), number(summary.itl_ms?.p50), number(summary.itl_ms?.p99), number(summary.turns_per_s), number(summary.output_tokens_per_s), percent(summary.error_rate), percent(summary.refusal_rate), stage.client.warnings.length ? element("span", { class: "word missed" }, "lagged") : "kept up"];
  }));
}

function conditionsOf(data) {
  const { config, conditions } = data;
  return factList([
    ["Command", data.command], ["Tool", conditions.tool], ["Python", conditions.python], ["Machine of the client", conditions.machine], ["System", conditions.system],
    ["Target", config.url], ["Model", config.model], ["Workload", config.workload], ["Conversations in the workload", number(config.conversations)], ["Arrivals", config.arrivals],
    ["Burstiness", config.burstiness], ["Popularity", config.popularity], ["Think time", config.think], ["Typed ahead", config.type_ahead], ["Longest reply asked for", config.max_tokens === null ? null : plural(config.max_tokens, "token")],
    ["Time limit of a turn", `${number(config.timeout_s)} s`], ["SLO", config.slo], ["Goodput bounds", config.goodput], ["Seed", String(config.seed)],
  ]);
}

function method() {
  const says = [
    "The clock of a turn starts when the turn is due, whatever the client is doing then. A wait for a slot and the client's own lateness are part of every duration.",
    "TTFT ends at the first delta with content, reasoning, a tool call or a refusal. A role chunk is no token.",
    "ITL is every gap between two tokens. TPOT is the sum of a turn's gaps over its output tokens but the first.",
    "Only measured turns that ended well have latencies. The others are counted by kind, and none is left out unsaid. Warm-up turns are drawn grey and are in no figure.",
    "Intervals hold with 95 % confidence: a bootstrap over whole conversations, because turns of one conversation are not independent.",
    "Tables come from histograms with three digits. Curves are made of every single sample.",
  ];
  return element("ul", { class: "method" }, says.map((say) => element("li", null, say)));
}
