"use strict";
// What every plot has in common: its frame, its scales, and the parts that several are made of.

const COLOUR = { p50: "var(--p50)", p90: "var(--p90)", p99: "var(--p99)", soft: "var(--ink-soft)", bad: "var(--danger)", ink: "var(--ink)" };
const PHASE_COLOURS = ["#77aadd", "#ee8866", "#eedd88", "#ffaabb", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00", "#c9a0dc"];

/** A place in the page for a plot: title, how to read it, and `draw(width)`, which is asked again when the width changes. */
function figure({ id, title, lead, legend, draw, note }) {
  const canvas = element("div", { class: "canvas" });
  const made = element("figure", { id, class: "plot" }, element("figcaption", null, element("h3", null, title), lead ? element("p", null, lead) : null), legend ? legendOf(legend) : null, canvas, note ? element("p", { class: "note" }, note) : null);
  let drawnFor = 0;
  made.redraw = () => {
    const width = Math.floor(canvas.clientWidth);
    if (!width || width === drawnFor) return;
    drawnFor = width;
    const drawn = [draw(width)].flat();
    for (const svg of drawn) svg.setAttribute("role", "img");
    canvas.replaceChildren(...drawn);
  };
  return made;
}

function leftOut(id, title, why) {
  return element("p", { id, class: "left-out" }, element("strong", null, title), ` is left out: ${why}`);
}

/** Entries are [name, colour, shape]: `line`, `dash`, `dot`, `box`, `mark`. */
function legendOf(entries) {
  return element("ul", { class: "legend" }, entries.map(([name, colour, shape]) => {
    const swatch = element("span", { class: `swatch ${shape}`, "aria-hidden": "true" });
    swatch.style.color = colour;
    return element("li", null, swatch, name);
  }));
}

function plot(label, width, options) {
  return Plot.plot({ width, marginTop: 30, marginLeft: 54, marginRight: 30, marginBottom: 40, ariaLabel: label, style: { fontSize: width < 480 ? "11px" : "12px", fontFamily: "inherit", background: "transparent", overflow: "visible" }, ...options });
}

function tick(value) {
  return value === 0 ? "0" : Math.abs(value) >= 1e6 ? d3.format("~s")(value) : Math.abs(value) >= 1 ? d3.format(",~g")(value) : String(Number(value.toPrecision(2)));
}

/** A scale of milliseconds: logarithmic when the values span much, and then its label says so. */
function milliScale(label, values) {
  const positive = values.filter((value) => value > 0);
  const low = d3.min(positive) ?? 0.1;
  const high = d3.max(positive) ?? 1;
  if (high / low <= 12) return { log: false, label: `${label} (ms)`, scale: { domain: [0, high * 1.02], nice: true } };
  const steps = logSteps(low, high);
  return { log: true, label: `${label} (ms, logarithmic)`, steps, scale: { type: "log", domain: [steps[0], steps.at(-1)] } };
}

/** 1, 2 and 5 of each power of ten, or the powers alone where they are many: the first at or below `low`, the last at or above `high`. */
function logSteps(low, high) {
  const made = [];
  for (let power = Math.floor(Math.log10(low)) - 1; power <= Math.ceil(Math.log10(high)) + 1; power++) {
    for (const step of high / low > 5_000 ? [1] : [1, 2, 5]) made.push(Number((step * 10 ** power).toPrecision(3)));
  }
  const first = made.findLastIndex((value) => value <= low * 1.0001);
  const last = made.findIndex((value) => value >= high * 0.9999);
  return made.slice(first, last + 1);
}

/** The vertical axis of milliseconds and its grid. With texts of our own: d3 leaves out most labels of a logarithmic axis. */
function milliMarks({ log, label, steps }) {
  const axis = { label, labelAnchor: "top", labelArrow: "none", tickSize: 4 };
  if (log) return [Plot.gridY(steps), Plot.axisY(steps, { ...axis, text: tick })];
  return [Plot.gridY({ ticks: 6 }), Plot.axisY({ ...axis, ticks: 6, tickFormat: tick }), Plot.ruleY([0], { stroke: "var(--line-strong)" })];
}

/** Says of the point nearest to the pointer what `options.title` makes of it. */
function tip(points, options) {
  return Plot.tip(points, Plot.pointer({ fill: "var(--surface)", stroke: "var(--line-strong)", lineHeight: 1.35, lineWidth: 24, ...options }));
}

function percentileName(nines) {
  const shown = 100 * (1 - 10 ** -nines);
  return `p${nines >= 2 ? Number(shown.toFixed(Math.ceil(nines) - 1)) : Number(shown.toFixed(1))}`;
}

/** Curves over percentiles that widen towards the tail, as HdrHistogram's plots do. */
function percentilePlot(label, width, curves, axisLabel) {
  const points = curves.flatMap(({ name, colour, dash, curve }) => curve.nines.map((nines, at) => ({ name, colour, dash, nines, ms: curve.ms[at] })));
  const y = milliScale(axisLabel, points.map((point) => point.ms));
  const shown = y.log ? points.filter((point) => point.ms > 0) : points;
  const last = d3.max(points, (point) => point.nines);
  const crowded = (width / last) * Math.log10(2) < 45;
  const ticks = [...(crowded ? [] : [0]), Math.log10(2), 1, 2, 3, 4, 5, 6, 7].filter((at) => at <= last + 0.001);
  return plot(label, width, {
    height: 270,
    x: { domain: [0, last], ticks, tickFormat: percentileName, label: "percentile, the tail widened", labelAnchor: "center", labelArrow: "none", grid: true },
    y: y.scale,
    marks: [
      milliMarks(y),
      curves.map(({ name, colour, dash }) => Plot.line(shown.filter((point) => point.name === name), { x: "nines", y: "ms", stroke: colour, strokeWidth: 2, strokeDasharray: dash ? "6 4" : null })),
      tip(shown, { x: "nines", y: "ms", title: (point) => `${curves.length > 1 ? `${point.name}\n` : ""}${percentileName(point.nines)}: ${milliseconds(point.ms)}` }),
    ],
  });
}

function histogram(label, width, bars, axisLabel, of) {
  const boxes = bars.counts.map((count, at) => ({ low: bars.edges_ms[at], high: bars.edges_ms[at + 1], count }));
  const [low, high] = [bars.edges_ms[0], bars.edges_ms.at(-1)];
  const most = d3.max(bars.counts) || 1;
  const steps = bars.log ? logSteps(low, high).filter((value) => value >= low && value <= high && (width >= 480 || high / low < 60 || /^1/.test(value.toPrecision(1)))) : [];
  const axis = { labelAnchor: "center", labelArrow: "none" };
  return plot(label, width, {
    height: 270,
    x: bars.log ? { type: "log", domain: [low, high] } : { domain: [low, high] },
    y: { label: of, ticks: Math.min(5, most), tickFormat: tick, grid: true, labelArrow: "none", domain: [0, most], nice: true },
    marks: [
      bars.log ? Plot.axisX(steps, { ...axis, label: `${axisLabel} (ms, logarithmic)`, text: tick }) : Plot.axisX({ ...axis, label: `${axisLabel} (ms)`, ticks: width < 480 ? 5 : 8, tickFormat: tick }),
      Plot.rect(boxes, { x1: "low", x2: "high", y1: 0, y2: "count", fill: COLOUR.p50, insetLeft: 0.5, title: (box) => `${milliseconds(box.low)} to ${milliseconds(box.high)}: ${number(box.count)}` }),
      Plot.ruleY([0], { stroke: "var(--line-strong)" }),
    ],
  });
}
