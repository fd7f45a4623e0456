"use strict";
// Puts the report together, and draws its plots as wide as the page is.

const data = JSON.parse(document.getElementById("data").textContent);

function stageSection(stage) {
  const { summary } = stage;
  const many = data.stages.length > 1;
  return element(
    "section", { id: "stage", "aria-label": `Stage ${stage.name}` },
    many ? element("h2", null, `Stage ${stage.name}`, element("span", { class: "soft" }, ` ${loadOf(stage)}`)) : null,
    many ? verdictList(stage.verdicts) : null,
    cards(stage),
    ttftByTurn(stage), ttftDistribution(stage), itlDistribution(stage), waterfall(stage), timeline(stage), dueAgainstSent(stage), pace(stage),
    element("h2", null, "In numbers"),
    turnTable(summary), latencyTable(summary), phaseTable(stage),
    element("h2", null, "Errors"), ...errorTable(summary),
    element("h2", null, "The client's own part"), ...clientTable(stage.client),
  );
}

function chooser(choose) {
  const buttons = data.stages.map((stage, at) => {
    const button = element("button", { type: "button", "aria-pressed": "false" }, stage.name);
    button.addEventListener("click", () => choose(at));
    return button;
  });
  return element("nav", { class: "chooser", "aria-label": "Stages" }, element("span", null, "Look at stage"), buttons);
}

function redrawAll() {
  for (const made of document.querySelectorAll("figure.plot")) made.redraw();
}

function firstStage() {
  const best = data.stages.findIndex((stage) => data.sweep && stage.rate_per_s === data.sweep.best_rate_per_s);
  return Math.max(0, best);
}

function show() {
  const report = document.getElementById("report");
  const place = element("div");
  const choose = (at, look = true) => {
    place.replaceChildren(stageSection(data.stages[at]));
    document.querySelectorAll(".chooser button").forEach((button, other) => button.setAttribute("aria-pressed", String(other === at)));
    redrawAll();
    if (look) document.querySelector(".chooser").scrollIntoView();
  };
  const many = data.stages.length > 1;
  report.replaceChildren(
    header(data), ...banners(data), ...verdicts(data),
    ...(many ? [element("section", { "aria-label": "All stages" }, loadPlot(data), stageTable(data, choose)), chooser(choose)] : []),
    place,
    element("h2", null, "Conditions"), conditionsOf(data),
    element("h2", null, "How it was measured"), method(),
  );
  if (data.stages.length) choose(firstStage(), false);
  else place.append(element("p", null, "This run has no stage: nothing was measured."));
  new ResizeObserver(redrawAll).observe(report);
}

show();
document.documentElement.dataset.drawn = "yes";
