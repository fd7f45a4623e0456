"use strict";
// The timeline of a stage, and the stages of a sweep against each other.

const LANES = { refused: "var(--p90)", unfinished: "var(--ink-soft)" };

function timeline(stage) {
  const [id, title] = ["timeline", "Timeline"];
  const { dots, marks, warmup_until_s: warm } = stage.plots;
  if (!dots.of && !marks.of) return leftOut(id, title, "no turn was sent.");
  const turns = dots.due_s.map((due, at) => ({ due, ms: dots.ttft_ms[at], warmup: dots.warmup[at], turn: dots.turn[at], conversation: dots.conversation[at] }));
  const bad = marks.due_s.map((due, at) => ({ due, outcome: marks.outcome[at], detail: marks.detail[at], warmup: marks.warmup[at], conversation: marks.conversation[at] }));
  const times = [...dots.due_s, ...marks.due_s];
  const domain = [Math.min(0, d3.min(times)), Math.max(d3.max(times), d3.min(times) + 0.001)];
  const span = warm === null ? [] : [{ from: domain[0], to: Math.max(domain[0], Math.min(warm, domain[1])) }];
  const shade = () => Plot.rect(span, { x1: "from", x2: "to", fill: "var(--ink-soft)", fillOpacity: 0.12 });
  const x = (width) => ({ domain, ticks: width < 480 ? 5 : 10, labelAnchor: "center", labelArrow: "none" });
  const notes = [
    dots.of > turns.length ? `${number(turns.length)} of ${plural(dots.of, "turn")} that ended well are drawn: the ${number(Math.floor(turns.length / 10))} slowest, and others at random.` : null,
    marks.of > bad.length ? `${number(bad.length)} of ${number(marks.of)} failed turns are drawn; the numbers at the lanes count all.` : null,
    marks.of ? null : "No turn failed.",
  ];
  const hasWarmup = turns.some((turn) => turn.warmup) || bad.some((mark) => mark.warmup);
  return figure({
    id, title,
    lead: "Each turn at the time it was due. Below, each failed turn in the lane of its kind.",
    legend: [["TTFT of a turn", COLOUR.p50, "dot"], ...(hasWarmup ? [["warm-up, in no figure", COLOUR.soft, "dot"]] : []), ...(marks.counts.refused ? [["refused", LANES.refused, "mark"]] : []), ...(marks.of > (marks.counts.refused ?? 0) + (marks.counts.unfinished ?? 0) ? [["failed", COLOUR.bad, "mark"]] : []), ...(marks.counts.unfinished ? [["unfinished", LANES.unfinished, "mark"]] : [])],
    note: notes.filter(Boolean).join(" "),
    draw: (width) => [...(turns.length ? [timelineDots(title, width, turns, x(width), shade(), !marks.of)] : []), ...(bad.length ? [timelineLanes(`${title}: failures`, width, bad, marks.counts, x(width), shade())] : [])],
  });
}

function timelineDots(title, width, turns, x, shade, last) {
  const y = milliScale("TTFT", turns.map((turn) => turn.ms));
  return plot(title, width, {
    height: 290,
    marginBottom: last ? 38 : 24,
    x: { ...x, label: last ? "due, since the stage began (s)" : null },
    y: y.scale,
    marks: [
      shade,
      milliMarks(y),
      Plot.dot(turns, { x: "due", y: "ms", r: turns.length > 1_500 ? 1.3 : 2, fill: (turn) => (turn.warmup ? COLOUR.soft : COLOUR.p50), fillOpacity: turns.length > 1_500 ? 0.4 : 0.6 }),
      tip(turns, { x: "due", y: "ms", title: (turn) => `turn ${turn.turn} of ${turn.conversation}${turn.warmup ? " (warm-up)" : ""}\ndue at ${number(turn.due)} s\nTTFT ${milliseconds(turn.ms)}` }),
    ],
  });
}

function timelineLanes(title, width, bad, counts, x, shade) {
  const kinds = Object.keys(MEANING).filter((kind) => counts[kind]);
  const names = kinds.map((kind) => ({ kind, text: `${kind}: ${number(counts[kind])}` }));
  return plot(title, width, {
    height: kinds.length * 38 + 44,
    marginTop: 4,
    x: { ...x, label: "due, since the stage began (s)" },
    y: { type: "band", domain: kinds, axis: null, padding: 0.1 },
    marks: [
      shade,
      Plot.barX(kinds, { y: (kind) => kind, x1: x.domain[0], x2: x.domain[1], fill: "none", stroke: "var(--line)", strokeWidth: 1 }),
      Plot.text(names, { y: "kind", x: x.domain[0], text: "text", textAnchor: "start", lineAnchor: "top", dx: 5, dy: -13, fill: COLOUR.ink }),
      Plot.tickX(bad, { x: "due", y: "outcome", stroke: (mark) => LANES[mark.outcome] ?? COLOUR.bad, strokeWidth: 1.5, strokeOpacity: (mark) => (mark.warmup ? 0.45 : 0.9), insetTop: 18, insetBottom: 3 }),
      tip(bad, { x: "due", y: "outcome", title: (mark) => `${mark.outcome}${mark.warmup ? " (warm-up)" : ""} at ${number(mark.due)} s\n${mark.detail}` }),
    ],
  });
}

/** `ttft_p99<500ms` as a line to draw; null for a bound of another kind. */
function latencyBound(bound, metric) {
  const found = new RegExp(`^\\s*${metric}_\\w+\\s*<=?\\s*([\\d.]+)\\s*(us|µs|ms|s)\\s*$`).exec(bound);
  return found ? Number(found[1]) * { us: 0.001, "µs": 0.001, ms: 1, s: 1_000 }[found[2]] : null;
}

function boundsOf(data, metric) {
  const bounds = new Set(data.stages.flatMap((stage) => stage.verdicts.map((verdict) => verdict.bound)));
  return [...bounds].map((bound) => ({ bound, ms: latencyBound(bound, metric) })).filter(({ ms }) => ms !== null);
}

function loadPlot(data) {
  const [id, title] = ["load", "Latency against the offered load"];
  const byRate = data.stages.every((stage) => stage.rate_per_s !== null);
  const loadOfStage = (stage) => (byRate ? stage.rate_per_s : stage.concurrency);
  const stages = data.stages.filter((stage) => loadOfStage(stage) !== null);
  if (new Set(stages.map(loadOfStage)).size < 2) return leftOut(id, title, "the stages do not differ in what they offer.");
  const rows = (field, at) => stages.filter((stage) => stage.summary[field]).map((stage) => ({ load: loadOfStage(stage), ms: stage.summary[field][at], ci: stage.summary[field][`${at}_ci`], name: stage.name, at })).sort((a, b) => a.load - b.load);
  const panels = [["TTFT", "ttft", [["p50", rows("ttft_ms", "p50")], ["p99", rows("ttft_ms", "p99")]]], ["ITL", "itl", [["p50", rows("itl_ms", "p50")], ["p99", rows("itl_ms", "p99")]]]].filter(([, , lines]) => lines[0][1].length);
  if (!panels.length) return leftOut(id, title, "no stage has a turn that ended well.");
  const loads = stages.map(loadOfStage);
  const bounded = panels.some(([, metric]) => boundsOf(data, metric).length);
  const margin = (d3.max(loads) - d3.min(loads)) * 0.06;
  const x = { domain: [d3.min(loads) - margin, d3.max(loads) + margin], labelAnchor: "center", labelArrow: "none", tickFormat: tick };
  return figure({
    id, title,
    lead: `${byRate ? "The load that users offer, not what the server got done." : "A closed loop: the server's pace decides how much is asked of it."} Bars show 95\u00a0% intervals.`,
    legend: [["p50", COLOUR.p50, "line"], ["p99", COLOUR.p99, "dash"], ...(bounded ? [["bound of the SLO", COLOUR.bad, "line"]] : []), ...(data.sweep?.best_rate_per_s ? [["highest rate that met the SLO", COLOUR.p90, "line"]] : [])],
    draw: (width) => panels.map(([name, metric, lines], at) => loadPanel({ name, metric, lines, width, data, last: at === panels.length - 1, x: { ...x, ticks: width < 480 ? 5 : 10, label: at === panels.length - 1 ? (byRate ? "offered rate (conversations/s)" : "conversations at a time") : null } })),
  });
}

function loadPanel({ name, metric, lines, width, data, x, last }) {
  const bounds = boundsOf(data, metric);
  const best = data.sweep?.best_rate_per_s ?? null;
  const values = lines.flatMap(([, rows]) => rows.flatMap((row) => [row.ms, ...(row.ci ? [row.ci.low, row.ci.high] : [])]));
  const y = milliScale(name, [...values, ...bounds.map(({ ms }) => ms)]);
  return plot(`${name} against the offered load`, width, {
    height: metric === "ttft" ? 280 : 220,
    marginBottom: last ? 38 : 26,
    x,
    y: y.scale,
    marks: [
      milliMarks(y),
      Plot.ruleY(bounds, { y: "ms", stroke: COLOUR.bad, strokeWidth: 1.5 }),
      Plot.text(bounds, { y: "ms", x: x.domain[0], text: "bound", textAnchor: "start", dx: 6, dy: -8, fill: COLOUR.bad }),
      best === null ? null : Plot.ruleX([best], { stroke: COLOUR.p90, strokeWidth: 2 }),
      best === null || metric !== "ttft" ? null : Plot.text([best], { x: (at) => at, frameAnchor: "top", text: (at) => `best ${number(at)}/s`, textAnchor: "end", dx: -6, dy: 4, fill: COLOUR.ink }),
      lines.map(([at, rows]) => Plot.ruleX(rows.filter((row) => row.ci), { x: "load", y1: (row) => row.ci.low, y2: (row) => row.ci.high, stroke: COLOUR[at], strokeWidth: 5, strokeOpacity: 0.35 })),
      lines.map(([at, rows]) => Plot.line(rows, { x: "load", y: "ms", stroke: COLOUR[at], strokeWidth: 2, strokeDasharray: at === "p99" ? "6 3" : null })),
      lines.map(([at, rows]) => Plot.dot(rows, { x: "load", y: "ms", r: 4, fill: COLOUR[at], title: (row) => `${row.name}: ${name} ${at} ${milliseconds(row.ms)}` })),
      lines.map(([at, rows]) => Plot.text(rows.slice(-1), { x: "load", y: "ms", text: [at], textAnchor: "start", dx: 9, fill: COLOUR[at], stroke: "var(--surface)", strokeWidth: 4 })),
    ],
  });
}
