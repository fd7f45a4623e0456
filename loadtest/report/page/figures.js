"use strict";
// What stands above the plots: what was measured, whether it can be trusted, and the big figures.

function verdictChip(verdict) {
  const state = verdict.met ? "met" : "missed";
  const value = verdict.value === null ? "nothing measured" : `it was ${number(verdict.value)}${unitOf(verdict.bound)}`;
  return element("li", { class: `chip ${state}` }, element("strong", null, verdict.met ? "✓ met" : "✗ missed"), ` ${verdict.bound} `, element("span", { class: "soft" }, `(${value})`));
}

/** The unit that ends a bound, since its value has the same. */
function unitOf(bound) {
  const unit = /\d\s*([a-zµ%/]+)\s*$/i.exec(bound)?.[1];
  return unit ? ` ${unit}` : "";
}

function verdictList(verdicts) {
  return verdicts.length ? element("ul", { class: "chips", "aria-label": "Verdicts on the SLO" }, verdicts.map(verdictChip)) : null;
}

function sweepVerdict(sweep) {
  const found = sweep.best_rate_per_s !== null;
  return element(
    "p",
    { class: `chip wide ${found ? "met" : "missed"}` },
    element("strong", null, found ? `✓ met up to ${number(sweep.best_rate_per_s)} conversations/s` : "✗ missed at every rate that was tried"),
    ` ${sweep.slo} `,
    found ? element("span", { class: "soft" }, sweep.first_missed_per_s === null ? "(no rate that was tried missed it: the limit lies higher)" : `(the lowest rate that missed it: ${number(sweep.first_missed_per_s)}/s)`) : null,
  );
}

function header(data) {
  const { config } = data;
  const facts = [
    ["Target", config.url],
    ["Model", config.model ?? NOTHING],
    ["Workload", `${config.workload}, ${plural(config.conversations, "conversation")}`],
    ["Load", data.stages.length === 1 ? `${loadOf(data.stages[0])}, ${config.arrivals}` : `${plural(data.stages.length, "stage")}, ${config.arrivals}`],
    ["When", when(data.created)],
  ];
  return element(
    "header",
    null,
    element("h1", null, "Load test", element("span", { class: "caret", "aria-hidden": "true" })),
    element("dl", { class: "facts" }, facts.map(([name, value]) => element("div", null, element("dt", null, name), element("dd", null, value)))),
  );
}

function verdicts(data) {
  return [data.sweep ? sweepVerdict(data.sweep) : null, data.stages.length === 1 ? verdictList(data.stages[0].verdicts) : null].filter(Boolean);
}

/** ISO 8601 in UTC, easier to read; any other way of writing a time stays as it is. */
function when(created) {
  const parts = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::[\d.]+)?(?:Z|\+00:00)$/.exec(created);
  return parts ? `${parts[1]} ${parts[2]} UTC` : created;
}

/** Said before any figure: reasons not to believe the figures. */
function banners(data) {
  const made = [];
  const lagged = data.stages.filter((stage) => stage.client.warnings.length);
  if (lagged.length) {
    const warnings = lagged.flatMap((stage) => stage.client.warnings.map((warning) => (data.stages.length > 1 ? `${stage.name}: ${warning}` : warning)));
    made.push(element("section", { class: "banner", role: "alert" }, element("h2", null, "The client lagged: part of what these figures show is the load tester itself"), element("ul", null, warnings.map((warning) => element("li", null, warning)))));
  }
  if (data.interrupted) {
    const unfinished = data.stages.reduce((sum, stage) => sum + stage.summary.unfinished, 0);
    const unsent = data.stages.reduce((sum, stage) => sum + stage.summary.not_sent, 0);
    made.push(element("section", { class: "banner", role: "alert" }, element("h2", null, "The run was interrupted"), element("p", null, `${plural(unfinished, "turn was", "turns were")} under way and ${plural(unsent, "was", "were")} never sent. The figures are of the turns before that.`)));
  }
  return made;
}

function interval(found) {
  return found ? `95 %: ${number(found.low)} to ${number(found.high)}` : "no interval: too few conversations";
}

function card(label, value, note, state) {
  return element("div", { class: `card ${state ?? ""}` }, element("dt", null, label), element("dd", null, element("span", { class: "value" }, value), note ? element("span", { class: "note" }, note) : null));
}

function cards(stage) {
  const { summary } = stage;
  const made = [];
  const latency = (label, distribution, at) => made.push(card(`${label} ${at}`, milliseconds(distribution?.[at]), distribution ? interval(distribution[`${at}_ci`]) : "no turn has one"));
  latency("TTFT", summary.ttft_ms, "p50");
  latency("TTFT", summary.ttft_ms, "p99");
  latency("ITL", summary.itl_ms, "p50");
  latency("ITL", summary.itl_ms, "p99");
  latency("TPOT", summary.tpot_ms, "p50");
  made.push(card("Turns", `${number(summary.turns_per_s)}/s`, `${plural(summary.ok, "turn")} in ${number(summary.duration_s)} s`));
  made.push(card("Output tokens", `${number(summary.output_tokens_per_s)}/s`, `${number(summary.output_tokens)} in all`));
  if (summary.goodput_per_s !== null) made.push(card("Goodput", `${number(summary.goodput_per_s)}/s`, `${percent(summary.good_share)} of turns are good`));
  made.push(card("Errors", percent(summary.error_rate), `${number(summary.failed - summary.refused)} of ${plural(summary.turns, "turn")}`, summary.error_rate > 0 ? "bad" : ""));
  made.push(card("Refusals", percent(summary.refusal_rate), `${number(summary.refused)} of ${plural(summary.turns, "turn")}`, summary.refusal_rate > 0 ? "warned" : ""));
  made.push(card("Cached share", percent(summary.cached_share), summary.cached_share === null ? "the server did not say" : "of prompt tokens, from the prefix cache"));
  return element("dl", { class: "cards" }, made);
}
