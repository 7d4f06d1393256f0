// Charts as inline SVG. Marks stand at per cent of the width, so text keeps its size on every screen.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 8; // --m0 to --m7 of page.css; more models take them again, with hollow dots

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Some round numbers within low..high, `most` at most.
function ticks(low, high, most = 5) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    const value = i * step + 0; // no -0
    found.push({ value, text: value.toFixed(digits) });
  }
  return found;
}

// Numbers from least to most, with some room on both sides. within: bounds that no number passes.
function reachOf(values, within = [0, 1]) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = Math.max((high - low) * 0.04, 1e-3);
  return [Math.max(within[0], low - room), Math.min(within[1], high + room)];
}

const linear = ([low, high]) => (value) => (100 * (value - low)) / (high - low);
const dotted = (m) => `dot c${m % COLOURS}${m >= COLOURS ? " hollow" : ""}`;

function mark(m) {
  return draw("svg", { class: "key", width: 12, height: 12, "aria-hidden": "true" },
    draw("circle", { cx: 6, cy: 6, r: 4.5, class: dotted(m) }));
}

function legend(names) {
  return make("p", { class: "legend" },
    ...names.map((text) => make("span", {}, mark(colourOf(text)), " ", ...breakable(text))));
}

const spoken = ({ model, value, low, high }, digits) =>
  `${model} ${number(value, digits)}${low === null ? "" : ` (${number(low, digits)} to ${number(high, digits)})`}`;

// A row of a chart: a label, a lane for each model with its interval, dots of single runs, and its mean.
function lanes(row, scale, marks, digits) {
  const step = row.lanes.length > 1 ? 11 : 22;
  const height = row.lanes.length * step + 6;
  const grid = marks.map(({ value }) => draw("line",
    { x1: `${scale(value)}%`, x2: `${scale(value)}%`, y1: 0, y2: height, class: "grid" }));
  const parts = row.lanes.filter((lane) => lane.value !== null).map((lane) => {
    const y = 3 + (row.lanes.indexOf(lane) + 0.5) * step;
    const m = colourOf(lane.model);
    const group = draw("g", {}, draw("title", {}, spoken(lane, digits)));
    if (lane.low !== null) {
      group.append(draw("line",
        { x1: `${scale(lane.low)}%`, x2: `${scale(lane.high)}%`, y1: y, y2: y, class: `span c${m % COLOURS}` }));
    }
    for (const [seed, value] of lane.runs ?? []) {
      group.append(draw("circle", { cx: `${scale(value)}%`, cy: y, r: 3.5, class: "run" },
        draw("title", {}, `${lane.model}, seed ${seed}: ${number(value, 4)}`)));
    }
    group.append(lane.runs
      ? draw("line", { x1: `${scale(lane.value)}%`, x2: `${scale(lane.value)}%`, y1: y - 8, y2: y + 8,
        class: `mean c${m % COLOURS}` })
      : draw("circle", { cx: `${scale(lane.value)}%`, cy: y, r: 4, class: dotted(m) }));
    return group;
  });
  const said = `${row.text}: ${row.lanes.map((lane) => spoken(lane, digits)).join("; ")}`;
  return draw("svg", { class: "lanes", width: "100%", height, role: "img", "aria-label": said }, ...grid, ...parts);
}

// rows: {text, label (nodes), note, lanes: [{model, value, low, high, runs}]}; one scale for all.
function laneChart(id, rows, { within = [0, 1], digits = 3, keys = [] } = {}) {
  const values = rows.flatMap((row) => row.lanes.flatMap((lane) =>
    [lane.value, lane.low, lane.high, ...(lane.runs ?? []).map(([, value]) => value)])).filter((v) => v !== null);
  if (!values.length) {
    byId(id).replaceChildren();
    return;
  }
  const reach = reachOf(values, within);
  const scale = linear(reach);
  const marks = ticks(...reach);
  const body = rows.map((row) => make("div", { class: "lane-row" },
    make("div", { class: "lane-label" }, ...row.label, ...(row.note ? [" ", make("span", { class: "quiet" }, row.note)] : [])),
    make("div", { class: "lane-plot" }, lanes(row, scale, marks, digits)),
    make("div", { class: "lane-value" }, row.value ?? "")));
  const axis = make("div", { class: "lane-row axis", "aria-hidden": "true" }, make("div", {}),
    make("div", { class: "lane-plot" }, ...axisLabels(marks, scale)), make("div", { class: "lane-value" }));
  byId(id).replaceChildren(...(keys.length ? [legend(keys)] : []),
    make("div", { class: rows.some((row) => row.value) ? "lane-chart valued" : "lane-chart" }, ...body, axis));
}

const axisLabels = (marks, scale) =>
  marks.map(({ value, text }) => make("span", { class: "tick", style: { left: `${scale(value)}%` } }, text));

// A panel with two axes. x, y: {reach, marks, title, scale}; inner: of SVG, in per cent; lines: lists of [x, y].
function panel(head, x, y, lines, inner, said) {
  const grid = [
    ...x.marks.map(({ value }) => draw("line",
      { x1: `${x.scale(value)}%`, x2: `${x.scale(value)}%`, y1: 0, y2: "100%", class: "grid" })),
    ...y.marks.map(({ value }) => draw("line",
      { y1: `${100 - y.scale(value)}%`, y2: `${100 - y.scale(value)}%`, x1: 0, x2: "100%", class: "grid" })),
  ];
  const points = (line) => line.map(([a, b]) => `${x.scale(a).toFixed(2)},${(100 - y.scale(b)).toFixed(2)}`).join(" ");
  const stretched = draw("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", width: "100%", height: "100%" },
    ...lines.filter(({ at }) => at.length > 1)
      .map(({ at, kind }) => draw("polyline", { points: points(at), class: `curve ${kind}` })));
  const ends = lines.filter(({ at }) => at.length === 1).map(({ at: [[a, b]], kind }) =>
    draw("circle", { cx: `${x.scale(a)}%`, cy: `${100 - y.scale(b)}%`, r: 3, class: `end ${kind}` }));
  const plot = draw("svg", { width: "100%", height: "100%", role: "img", "aria-label": said },
    ...grid, stretched, ...ends, ...inner);
  return make("figure", { class: "panel" },
    make("figcaption", {}, ...head),
    make("div", { class: "plot" },
      make("div", { class: "y", "aria-hidden": "true" }, ...y.marks.map(({ value, text }) =>
        make("span", { style: { bottom: `${y.scale(value)}%` } }, text))),
      make("div", { class: "area" }, plot),
      make("div", { class: "x", "aria-hidden": "true" }, ...axisLabels(x.marks, x.scale)),
      ...(x.title ? [make("div", { class: "x-title quiet" }, x.title)] : [])));
}
