"use strict";
// The plots of the report: each function gives one figure or says why there is none.

const TOO_FEW = "fewer than two measured turns ended well.";

function ttftByTurn(stage) {
  const [id, title] = ["ttft-by-turn", "TTFT by turn of the conversation"];
  const { ttft_by_turn: rows, dots } = stage.plots;
  if (rows.length < 2) return leftOut(id, title, "every measured turn has the same place in its conversation.");
  const few = dots.of <= 600 && dots.of === dots.due_s.length;
  const points = few ? dots.turn.map((turn, at) => ({ turn: turn + ((at * 0.618) % 1 - 0.5) * 0.3, index: turn, ms: dots.ttft_ms[at], warmup: dots.warmup[at], conversation: dots.conversation[at] })).filter((point) => !point.warmup) : [];
  const intervals = stage.summary.ttft_by_turn.filter((row) => row.ttft_ms?.p50_ci).map((row) => ({ turn: row.turn, ...row.ttft_ms.p50_ci }));
  const lines = [["p50", "p50_ms", null], ["p90", "p90_ms", "6 3"], ["p99", "p99_ms", "2 3"]];
  const y = milliScale("TTFT", [...rows.flatMap((row) => [row.p50_ms, row.p90_ms, row.p99_ms]), ...points.map((point) => point.ms)]);
  const last = rows.at(-1).turn;
  return figure({
    id, title,
    lead: "The prompt grows with every turn. A line that stays flat shows that the prefix cache works.",
    legend: [...lines.map(([name, , dash]) => [name, COLOUR[name], dash ? "dash" : "line"]), ...(few ? [["a turn", COLOUR.soft, "dot"]] : [])],
    note: rows.some((row) => row.n < 100) ? "Where a place has fewer than 100 turns, its p99 is close to its slowest turn. The table gives the counts." : null,
    draw: (width) => plot(title, width, {
      height: 310,
      x: { domain: [rows[0].turn - 0.5, last + 0.5], ticks: Math.min(last, width < 480 ? 8 : 20), tickFormat: (at) => (Number.isInteger(at) ? String(at) : ""), label: "turn of the conversation", labelAnchor: "center", labelArrow: "none" },
      y: y.scale,
      marks: [
        milliMarks(y),
        Plot.dot(points, { x: "turn", y: "ms", r: 2, fill: COLOUR.soft, fillOpacity: 0.35, title: (point) => `turn ${point.index} of ${point.conversation}\n${milliseconds(point.ms)}` }),
        Plot.ruleX(intervals, { x: "turn", y1: "low", y2: "high", stroke: COLOUR.p50, strokeWidth: 5, strokeOpacity: 0.35 }),
        lines.map(([name, field, dash]) => Plot.line(rows, { x: "turn", y: field, stroke: COLOUR[name], strokeWidth: 2, strokeDasharray: dash })),
        lines.map(([name, field]) => Plot.dot(rows, { x: "turn", y: field, fill: COLOUR[name], r: 3.5, title: (row) => `turn ${row.turn}, ${name}: ${milliseconds(row[field])} (${plural(row.n, "turn")})` })),
        lines.map(([name, field]) => Plot.text(rows.slice(-1), { x: "turn", y: field, text: [name], textAnchor: "start", dx: 9, fill: COLOUR[name], stroke: "var(--surface)", strokeWidth: 4 })),
      ],
    }),
  });
}

function distribution(id, title, lead, axisLabel, curves, bars, samples, more) {
  const outside = bars.below + bars.above;
  const notes = [`${plural(curves[0].curve.n, samples)}.`, outside ? `The bars run from p0.1 to p99.9: ${number(bars.below)} below and ${number(bars.above)} above are not in them, and all are in the curve.` : null, more];
  return figure({
    id, title, lead,
    legend: curves.length > 1 ? curves.map(({ name, colour, dash }) => [name, colour, dash ? "dash" : "line"]) : null,
    note: notes.filter(Boolean).join(" "),
    draw: (width) => {
      const beside = width >= 820;
      const each = beside ? Math.floor((width - 24) / 2) : width;
      return [percentilePlot(`${title}: percentiles`, each, curves, axisLabel), histogram(`${title}: histogram`, each, bars, axisLabel, `${samples}s`)];
    },
  });
}

function ttftDistribution(stage) {
  const [id, title] = ["ttft-distribution", "TTFT distribution"];
  const { ttft, ttft_bars: bars, server_ttft: server } = stage.plots;
  if (!ttft || !bars) return leftOut(id, title, TOO_FEW);
  const curves = [{ name: "as the user saw it", colour: COLOUR.p50, curve: ttft }, ...(server ? [{ name: "as the server reports it", colour: COLOUR.p99, dash: true, curve: server }] : [])];
  return distribution(id, title, "The curve: how long the slowest in ten, in a hundred and in a thousand wait. The bars: how many turns took how long.", "TTFT", curves, bars, "turn");
}

function itlDistribution(stage) {
  const [id, title] = ["itl-distribution", "ITL distribution"];
  const { itl, itl_bars: bars, zero_gaps: zero } = stage.plots;
  if (!itl || !bars) return leftOut(id, title, "there are fewer than two gaps between tokens.");
  const more = zero ? `${number(zero)} gaps (${percent(zero / itl.n)}) have no length, because both tokens came in one read; they are not in the bars.` : null;
  return distribution(id, title, "Every gap between two tokens of a turn. A step in the curve is a second kind of gap, such as the wait for the prefill of another request.", "gap", [{ name: "gap", colour: COLOUR.p50, curve: itl }], bars, "gap", more);
}

function dueAgainstSent(stage) {
  const [id, title] = ["due-against-sent", "TTFT from when the turn was due, and from when it was sent"];
  const { ttft, sent_ttft: sent } = stage.plots;
  if (!ttft) return leftOut(id, title, TOO_FEW);
  if (!sent) return leftOut(id, title, "the two differ by 5 % or less, so turns were sent when they were due.");
  return figure({
    id, title,
    lead: "A user waits from the moment the turn is due. A load tester that starts its clock when it sends does not see its own queue, and reports the dashed line.",
    legend: [["from when it was due: what users wait", COLOUR.p50, "line"], ["from when it was sent: what such a tool reports", COLOUR.p99, "dash"]],
    draw: (width) => percentilePlot(title, width, [{ name: "from due", colour: COLOUR.p50, curve: ttft }, { name: "from sent", colour: COLOUR.p99, dash: true, curve: sent }], "TTFT"),
  });
}

function pace(stage) {
  const [id, title] = ["pace", "Output tokens per second"];
  const { pace: found } = stage.plots;
  if (!found) return leftOut(id, title, "fewer than two turns brought tokens.");
  const steps = found.tokens_per_s.map((rate, at) => ({ from: found.start_s + at * found.step_s, to: found.start_s + (at + 1) * found.step_s, rate }));
  return figure({
    id, title,
    lead: `When tokens came, over all streams, in steps of ${number(found.step_s)} s. Warm-up is in it.`,
    draw: (width) => plot(title, width, {
      height: 190,
      x: { domain: [steps[0].from, steps.at(-1).to], ticks: width < 480 ? 5 : 10, label: "time since the stage began (s)", labelAnchor: "center", labelArrow: "none" },
      y: { label: "tokens/s", ticks: 5, tickFormat: tick, grid: true, labelArrow: "none" },
      marks: [
        Plot.rect(steps, { x1: "from", x2: "to", y1: 0, y2: "rate", fill: COLOUR.p50, fillOpacity: 0.8, inset: 0, title: (step) => `${number(step.from)} s: ${number(step.rate)} tokens/s` }),
        Plot.ruleY([0], { stroke: "var(--line-strong)" }),
      ],
    }),
  });
}

function waterfall(stage) {
  const [id, title] = ["phases", "Where the time to first token went"];
  const { phases: rows, phase_turns: turns } = stage.plots;
  if (!rows.length) return leftOut(id, title, "the server does not report its phases.");
  const names = phaseNames(rows);
  const colours = phaseColours(names);
  const parts = rows.flatMap((row) => {
    let start = 0;
    return row.parts.map((part) => ({ label: row.label, name: part.name, ms: part.ms, from: start, to: (start += part.ms) }));
  });
  const totals = rows.map((row) => ({ label: row.label, n: row.n, ms: d3.sum(row.parts, (part) => part.ms) }));
  return figure({
    id, title,
    lead: `Means over the ${plural(turns, "turn")} whose server told its phases. A bar ends at the mean TTFT that the client saw.`,
    legend: names.map((name) => [name, colours.get(name), "box"]),
    draw: (width) => plot(title, width, {
      height: rows.length * 32 + 50,
      marginTop: 8,
      marginLeft: 74,
      marginRight: 66,
      x: { label: "time since the turn was due (ms)", labelAnchor: "center", labelArrow: "none", ticks: width < 480 ? 4 : 8, tickFormat: tick, grid: true },
      y: { domain: rows.map((row) => row.label), label: null, tickSize: 0, padding: 0.22 },
      marks: [
        Plot.barX(parts, { y: "label", x1: "from", x2: "to", fill: (part) => colours.get(part.name), stroke: "var(--surface)", strokeWidth: 1, title: (part) => `${part.label}: ${part.name}\n${milliseconds(part.ms)}` }),
        Plot.text(totals, { y: "label", x: "ms", text: (row) => milliseconds(row.ms), textAnchor: "start", dx: 6, fill: COLOUR.ink }),
      ],
    }),
  });
}

function phaseNames(rows) {
  const names = rows[0].parts.map((part) => part.name);
  for (const row of rows) for (const part of row.parts) if (!names.includes(part.name)) names.push(part.name);
  return names;
}

function phaseColours(names) {
  const own = new Map([["waited in the client", "var(--ink)"], ["not told by the server", "var(--line-strong)"], ["network and client", "var(--neutral)"]]);
  let next = 0;
  return new Map(names.map((name) => [name, own.get(name) ?? PHASE_COLOURS[next++ % PHASE_COLOURS.length]]));
}
