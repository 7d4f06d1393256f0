// The page of a study: verdict, charts and tables of one data set's split at a time, and what starts it.

const gallerySlots = ["folder", "models", "classes", "palette", "photos", "images"];
const all = data.plan.models.map((model) => model.name);
const trained = data.plan.models.filter((model) => !model.file).map((model) => model.name);
const colourOf = (model) => all.indexOf(model); // the same in every chart, whatever a section lacks
let section = data.sections[0];

const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
const share = (pair, digits = 3) =>
  (pair.low === null ? "–" : `${number(pair.low, digits)} to ${number(pair.high, digits)}`);
const excludes = (found) => found.low !== null && (found.low > 0 || found.high < 0);
const named = (text) => make("span", { class: "name" }, ...breakable(text));
const scored = () => section.scores.map((row) => row.model);
const unit = () => section.groups?.unit ?? "group";
const why = () => section.open || (section.left_out
  ? `Each run is scored on the ${unit()} that it left out. Runs of other images are not added up here.` : "");

function large(value) {
  if (value === null) return "–";
  const [divisor, letter] = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"]].find(([n]) => value >= n) ?? [1, ""];
  return `${Number((value / divisor).toPrecision(3))}${letter}`;
}

// A budget as it was written where that is short: 13,104 images, but 1 T multiply-adds.
const budgetText = (value) => (value < 1e6 ? count(value) : large(value));

function note(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

// Show the parts of a section, or say why they are not there.
function presence(id, open, parts) {
  if (open) note(id, open);
  for (const part of parts) byId(part).hidden = Boolean(open);
  return !open;
}

function showVerdict() {
  byId("title").textContent = data.title;
  const images = section.images ? `${plural(section.images, "image")} of ` : "";
  const seeds = plural(data.plan.seeds.length, "seed");
  const untrained = all.length - trained.length;
  const others = untrained ? ` and ${plural(untrained, "model that was", "models that were")} not trained here` : "";
  const budget = `${budgetText(data.plan.budget.value)} ${data.plan.budget.kind}`;
  byId("subtitle").replaceChildren(...breakable(
    `${images}${section.data}, split ${section.split}; ${plural(trained.length, "model")} with ${seeds} each, trained ` +
    `with a budget of ${budget} a run${others}. kseg ${data.kseg_version}.`));
  byId("verdict").replaceChildren(...breakable(withMinus(section.headline)));
  const gone = section.missing.length;
  const without = all.filter((model) => section.missing.filter((run) => run.startsWith(`${model}/`)).length ===
    (trained.includes(model) ? data.plan.seeds.length : 1));
  const lacks = without.length ? ` No run of ${without.join(", ")} is finished.` : "";
  const some = section.seeds[trained.find((model) => section.seeds[model])] ?? [];
  const compared = all.length > 1 && some.length && some.length < data.plan.seeds.length && data.plan.paired
    ? ` Compared are the seeds that all models have: ${some.join(", ")}.` : "";
  byId("gaps").hidden = !gone;
  byId("gaps").replaceChildren(...breakable(
    `${plural(gone, "run")} of ${count(section.planned)} ${gone === 1 ? "is" : "are"} not there.` +
    lacks + compared));
  const found = Object.fromEntries(((section.objects ?? {}).sizes?.[0]?.models ?? []).map((row) => [row.model, row]));
  byId("tiles").replaceChildren(...section.scores.map((row) => {
    const facts = [["mean IoU", number(row.mean_iou, 4), share(row, 4)]];
    if (found[row.model]) facts.push(["objects found", number(found[row.model].value), share(found[row.model])]);
    const list = facts.flatMap(([text, value, ends]) =>
      [make("dt", {}, text), make("dd", {}, value), make("dd", { class: "ends" }, ends)]);
    return make("div", { class: `tile c${colourOf(row.model) % COLOURS}` },
      make("h3", {}, ...breakable(row.model)), make("dl", { class: "with-ends" }, ...list));
  }));
}

// Pairs in the order of their models' scores.
function byRank(pairs) {
  const rank = (pair) => scored().indexOf(pair.first) * all.length + scored().indexOf(pair.second);
  return [...pairs].sort((a, b) => rank(a) - rank(b));
}

// Columns of pairs of models: values(pair) are the two numbers whose difference is shown.
function pairCells(pairs, values) {
  const reach = Math.max(...pairs.flatMap((pair) => [Math.abs(pair.low ?? 0), Math.abs(pair.high ?? 0)]), 1e-9);
  const text = (pair) => make("span", { class: "of-pair" },
    make("span", {}, ...breakable(pair.first)), make("span", {}, " − ", ...breakable(pair.second)));
  const whose = (pair) => (excludes(pair) ? "first" : "");
  const ends = (pair) => {
    if (pair.low === null) return "–";
    const shown = make("span", {}, interval([pair.low, pair.high], pair.digits));
    return make("span", { class: "interval" }, forest([pair.low, pair.high], reach, whose(pair)), shown);
  };
  return [
    words("A − B", (r) => `${r.first} − ${r.second}`, text),
    { title: "difference", value: (r) => r.difference,
      cell: (r) => difference(signed(shownGap(...values(r), r.digits), r.digits), whose(r)) },
    { title: "95 % interval", value: (r) => r.low, cell: ends },
  ];
}

const MOST_PAIRS = 6; // more are folded, unless one of them is the best model

function showPairs() {
  const pairs = byRank(section.pairs);
  const ids = ["pairs-table", "columns", "others", "sentences", "power", "meaning"];
  const open = section.open ? "There are no pairs: no verdict is possible yet." : "There is one model, so there is no pair.";
  if (!presence("pairs-note", pairs.length ? "" : open, ids)) return;
  const tested = section.left_out ? `p by ${unit()}s` : "p by seeds";
  note("pairs-note", `Difference of mean IoU, A minus B, A being the model with the higher score. The interval is that ` +
    `of other seeds and other ${unit()}s. The verdict rests on the interval and on the first two p.`);
  byId("columns-list").replaceChildren(...[
    `p: of no difference, corrected for ${plural(pairs.length, "pair")} (Holm).`,
    `p equivalent: of a difference of ${data.equivalence} or more, corrected likewise. A smaller one does not matter.`,
    "P(A > B): how often a run of A scores above a run of B, with its 95 % interval. * marks where A is better by the rule " +
      "of Bouthillier et al. (2021): the interval lies above 0.5 and reaches above 0.75.",
    `${tested}: of a permutation test, corrected likewise. ${section.seed_test_note}`.trim(),
  ].map((text) => make("li", {}, text)));
  const best = pairs.filter((row) => [row.first, row.second].includes(scored()[0]));
  const folded = pairs.length - best.length > MOST_PAIRS ? pairs.filter((row) => !best.includes(row)) : [];
  const [pair, gap, ends] = pairCells(pairs, (row) => [row.first_score, row.second_score]);
  const p = (value) => (value < 0.001 ? "< 0.001" : value.toFixed(3));
  const chance = (it) => (it
    ? `${it.value.toFixed(2)} (${it.low.toFixed(2)} to ${it.high.toFixed(2)})${it.meaningful ? " *" : ""}` : "–");
  const columns = [
    pair, words("verdict", (r) => r.result), gap, ends,
    { title: "p", value: (r) => r.p, cell: (r) => p(r.p) },
    { title: "p equivalent", value: (r) => r.p_equivalent, cell: (r) => p(r.p_equivalent) },
    { title: "P(A > B)", value: (r) => r.superiority?.value ?? null, cell: (r) => chance(r.superiority) },
    { title: tested, value: (r) => r.seed_test?.p_holm ?? null, cell: (r) => (r.seed_test ? p(r.seed_test.p_holm) : "–") },
  ];
  showTable("pairs-table", columns, folded.length ? best : pairs);
  byId("others").hidden = !folded.length;
  byId("others-head").textContent = `The other ${plural(folded.length, "pair")}, without ${scored()[0]}`;
  showTable("others-table", columns, folded);
  const line = (text) => make("li", {}, ...breakable(withMinus(text)));
  byId("verdicts").replaceChildren(...pairs.map((row) => line(row.verdict)));
  const known = pairs.filter((row) => row.budget);
  byId("power").hidden = !known.length;
  byId("budgets").replaceChildren(
    ...known.map((row) => line(`${row.first} and ${row.second}: ${row.budget.sentence}`)));
  if (known.length) {
    const parts = Object.keys(known[0].shares).map((key) =>
      ({ title: key, value: (r) => r.shares[key], cell: (r) => percent(r.shares[key]) }));
    showTable("shares-table", [pair, ...parts], known);
  }
  note("meaning", `${section.groups?.meaning ?? ""} ${section.fixed_note}`.trim());
}

function showRuns() {
  const open = section.scores.length ? "" : section.open;
  if (!presence("runs-note", open, ["runs-chart"])) return;
  note("runs-note", "Mean IoU over the classes of the truth. A dot is a run, the upright line their mean, the bar its " +
    "95 % interval. Only compared runs are shown.");
  laneChart("runs-chart", section.scores.map((row) => ({
    text: row.model, label: breakable(row.model), value: number(row.mean_iou, 4),
    lanes: [{ ...row, value: row.mean_iou, runs: Object.entries(row.runs) }],
  })));
}

const CURVES = { loss: "training loss", val_mean_iou: "mean IoU on val" };

function showCurves() {
  const some = Object.keys(CURVES).filter((key) => section.curves.some((run) => run[key].some((v) => v !== null)));
  const open = some.length ? "" : "The runs were scored before kseg kept their learning curves. They are in history.csv " +
    "of each run folder.";
  if (!presence("curves-note", open, ["curve-choice", "curves-chart"])) return;
  const before = byId("curve").value;
  fill("curve", some.map((key) => [key, CURVES[key]]));
  if (some.includes(before)) byId("curve").value = before;
  drawCurves();
}

function drawCurves() {
  const key = byId("curve").value;
  const lines = section.curves.map((run) => {
    const last = run.images[run.images.length - 1];
    return { ...run, at: run.images.map((n, i) => [n / last, run[key][i]]).filter(([, value]) => value !== null) };
  }).filter(({ at }) => at.length);
  const order = [...scored(), ...all.filter((model) => !scored().includes(model))];
  const shown = order.filter((model) => lines.some((line) => line.model === model));
  const values = lines.flatMap(({ at }) => at.map(([, value]) => value));
  const reach = reachOf(values, key === "loss" ? [0, Infinity] : [0, 1]);
  const x = { marks: [0, 0.5, 1].map((value) => ({ value, text: percent(value) })), scale: linear([0, 1]),
    title: "of the budget" };
  const y = { marks: ticks(...reach, 4), scale: linear(reach) };
  byId("curves-chart").replaceChildren(...shown.map((model) => {
    const of = lines.filter((line) => line.model === model);
    const [run] = of;
    const facts = `${plural(of.length, "run")}, ${count(run.images[run.images.length - 1])} images and ` +
      `${plural(run.at.length, "value")} each`;
    const head = [make("span", { class: "model" }, ...breakable(model)), " ", make("span", { class: "quiet" }, facts)];
    const curves = of.map(({ at }) => ({ at, kind: `c${colourOf(model) % COLOURS}` }));
    const end = mean(of.map(({ at }) => at[at.length - 1][1]));
    return panel(head, x, y, curves, [], `${CURVES[key]} of ${model}: at the end ${number(end)} on average`);
  }));
  note("curves-note", "A line is a run, all panels have one scale. Training gives a loss for each epoch, and a score " +
    "where it is validated: short runs have few values.");
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const modelCells = (digits = 3) => (names) => names.map((model) => {
  const of = (row) => row.models.find((one) => one.model === model);
  const ends = (it) => (it.low === null ? "" : make("span", { class: "quiet" }, ` ${share(it)}`));
  return { title: named(model), value: (r) => of(r).value,
    cell: (r) => make("span", { class: "stacked" }, number(of(r).value, digits), ends(of(r))) };
});

function classLabel(row) {
  const colour = section.palette?.[row.id];
  const square = colour ? [make("span", { class: "swatch", style: { background: `rgb(${colour.join(" ")})` } })] : [];
  return make("span", { class: "class" }, ...square, ...breakable(row.class));
}

function showClasses() {
  const rows = section.per_class ?? [];
  const ids = ["classes-chart", "classes-table"];
  byId("classes").querySelector("details").hidden = !rows.length;
  if (!presence("classes-note", rows.length ? "" : why(), ids)) return;
  const few = rows.filter((row) => row.groups < 2).map((row) => row.class);
  note("classes-note", `Classes of the truth, with 95 % intervals over seeds and ${unit()}s. They are not corrected for ` +
    "the number of classes." + (few.length ? ` Only one ${unit()} has ${few.join(", ")}: no interval.` : ""));
  const total = rows.reduce((sum, row) => sum + row.pixels, 0);
  laneChart("classes-chart", rows.map((row) => ({
    text: row.class, label: [classLabel(row)], note: percent(row.pixels / total), lanes: ordered(row.models),
  })), { keys: scored() });
  showTable("classes-table", [
    words("class", (r) => r.class, classLabel), ...modelCells()(scored()),
    { title: "pixels", value: (r) => r.pixels, cell: (r) => percent(r.pixels / total) },
    { title: `${unit()}s`, value: (r) => r.groups, cell: (r) => count(r.groups) },
  ], rows);
}

// A row's models in the order of their scores.
const ordered = (models) => {
  const order = scored().length ? scored() : models.map((one) => one.model);
  return order.map((model) => models.find((one) => one.model === model));
};

const MOST_GROUPS = 24;

function showGroups() {
  const rows = section.per_group ?? [];
  byId("groups").querySelector("details").hidden = !rows.length;
  if (!presence("groups-note", rows.length ? "" : why(), ["groups-chart", "groups-table"])) return;
  const spread = (row) => {
    const values = row.models.map((one) => one.value);
    return Math.max(...values) - Math.min(...values);
  };
  byId("groups-head").textContent = `Mean IoU by ${unit()}`;
  const single = rows.every((row) => row.images === 1);
  let shown = rows;
  if (rows.length > MOST_GROUPS) shown = [...rows].sort((a, b) => spread(b) - spread(a)).slice(0, MOST_GROUPS);
  const which = shown === rows ? "" : ` Of ${plural(rows.length, unit())} the ${MOST_GROUPS} are drawn where the models ` +
    "differ most.";
  note("groups-note", `Mean over the runs, of the classes that the ${unit()} has. The intervals are 95 % over seeds, for ` +
    `this ${unit()} alone.${which}`);
  laneChart("groups-chart", shown.map((row) => ({
    text: row.group, label: breakable(row.group), note: single ? "" : plural(row.images, "image"),
    lanes: ordered(row.models),
  })), { keys: scored() });
  showTable("groups-table", [
    words(unit(), (r) => r.group, (r) => named(r.group)), ...modelCells()(scored()),
    { title: "images", value: (r) => r.images, cell: (r) => count(r.images) },
  ], rows);
}

const sizeText = (row) => {
  if (!row.pixels) return "all sizes";
  const pixels = row.pixels.replace(/\d+/g, (digits) => count(Number(digits))).replace(">=", "≥");
  return row.size === row.pixels ? `${pixels} px` : `${row.size}, ${pixels} px`;
};

function showObjects() {
  const table = section.objects;
  let open = section.per_class ? "" : why();
  if (!open && !table) open = "A run was scored before kseg counted objects in studies. Delete its file in counts/ and " +
    "start the study again: it is scored anew.";
  if (!open && !table.sizes.length) open = "The truth has no objects.";
  if (!presence("objects-note", open, ["objects-parts"])) return;
  note("objects-note", `Found: at least ${percent(table.overlap)} of the object's pixels are predicted as its class. ` +
    "Objects are the instances of the records where a class has any, else connected regions of its truth. Sizes are " +
    "pixels of the label: 100 are a square of 10 by 10; 1,000 and 10,000 are near the bounds of COCO (32 by 32 and 96 " +
    `by 96). Intervals are 95 % over seeds and ${unit()}s.`);
  laneChart("sizes-chart", table.sizes.map((row) => ({
    text: sizeText(row), label: [sizeText(row)], note: plural(row.objects, "object"), lanes: ordered(row.models),
  })), { keys: scored() });
  showTable("sizes-table", [
    words("size", (r) => table.sizes.indexOf(r), sizeText),
    { title: "objects", value: (r) => r.objects, cell: (r) => count(r.objects) }, ...modelCells()(scored()),
  ], table.sizes);
  fill("size", table.sizes.map((row, i) => [i, sizeText(row)]));
  fill("swallower", scored().map((model) => [model, model]));
  showGains();
  showSwallowed();
}

function showGains() {
  const pairs = byRank(section.objects.sizes[Number(byId("size").value)].pairs);
  const [pair, gap, ends] = pairCells(pairs, (row) => [row.first_value, row.second_value]);
  const found = (title, key) => ({ title, value: (r) => r[key], cell: (r) => number(r[key], r.digits) });
  showTable("gains-table", [pair, found("A finds", "first_value"), found("B finds", "second_value"), gap, ends], pairs);
}

function showSwallowed() {
  const model = byId("swallower").value;
  const of = (row) => row.models.find((one) => one.model === model);
  const into = (row) => of(row).swallowed_by.slice(0, 3).map((one) => `${one.into} ${percent(one.share)}`).join(", ");
  showTable("objects-table", [
    words("class", (r) => r.class, classLabel),
    { title: "objects", value: (r) => r.objects, cell: (r) => count(r.objects) },
    { title: "found", value: (r) => of(r).value, cell: (r) => number(of(r).value) },
    { title: "95 % interval", value: (r) => of(r).low, cell: (r) => share(of(r)) },
    words("missed, taken for", into, (r) => into(r) || "–"),
  ], section.objects.classes);
}

const COSTS = {
  parameters: ["parameters", large],
  multiply_adds: ["multiply-adds of an image", large],
  cpu_seconds: ["CPU seconds of a run", (seconds) => count(Math.round(seconds))],
  peak_memory: ["peak memory", (bytes) => (bytes ? `${large(bytes)}B` : bytes === null ? "–" : "0")],
};

function showCosts() {
  const ofSeconds = ["seconds", "gpu-seconds"].includes(data.plan.budget.kind);
  const score = Object.fromEntries(section.scores.map((row) => [row.model, row]));
  const rows = data.costs.filter((row) => row.data === section.data && score[row.model])
    .map((row) => ({ ...row, score: score[row.model] })).sort((a, b) => b.score.mean_iou - a.score.mean_iou);
  if (!presence("costs-note", rows.length ? "" : section.open, ["costs-chart", "costs-table"])) return;
  note("costs-note", "Mean IoU with its 95 % interval against what a model costs; up and to the left is better. Seconds " +
    "and memory are those of the training process, with start, scoring and export." +
    (data.seconds_note ? ` ${data.seconds_note}` : ""));
  const yReach = reachOf(rows.flatMap((row) => [row.score.low, row.score.high]));
  const y = { marks: ticks(...yReach, 4), scale: linear(yReach) };
  const panels = Object.entries(COSTS).filter(([key]) => rows.every((row) => row[key] !== null)).map(([key, [text, show]]) => {
    const high = Math.max(...rows.map((row) => row[key])) * 1.08;
    const x = { marks: ticks(0, high, 4).map(({ value }) => ({ value, text: show(value) })), scale: linear([0, high]) };
    const dots = rows.map((row) => {
      const m = colourOf(row.model);
      const at = `${x.scale(row[key])}%`;
      const up = (value) => `${100 - y.scale(value)}%`;
      return draw("g", {}, draw("title", {}, `${row.model}: ${show(row[key])}, ${number(row.score.mean_iou)}`),
        draw("line", { x1: at, x2: at, y1: up(row.score.low), y2: up(row.score.high), class: `span c${m % COLOURS}` }),
        draw("circle", { cx: at, cy: up(row.score.mean_iou), r: 5, class: dotted(m) }));
    });
    const said = rows.map((row) => `${row.model}: ${show(row[key])}, mean IoU ${number(row.score.mean_iou)}`).join("; ");
    return panel([text], x, y, [], dots, said);
  });
  byId("costs-chart").replaceChildren(make("div", { class: "whole" }, legend(rows.map((row) => row.model))), ...panels);
  const cells = Object.entries(COSTS).map(([key, [text, show]]) =>
    ({ title: text, value: (r) => r[key], cell: (r) => show(r[key]) }));
  showTable("costs-table", [
    words("model", (r) => r.model, (r) => named(r.model)),
    { title: "mean IoU", value: (r) => r.score.mean_iou, cell: (r) => number(r.score.mean_iou, 4) }, ...cells,
    { title: "images seen", value: (r) => r.images_seen, cell: (r) => count(r.images_seen) },
    ...(ofSeconds ? [] : [{ title: "of the budget", value: (r) => r.spent / r.budget,
      cell: (r) => `${((100 * r.spent) / r.budget).toFixed(1)} %` }]),
  ], rows);
}

function showGallery() {
  const gallery = data.galleries[data.sections.indexOf(section)];
  const parts = [...byId("images").children].filter((part) => !["images-head", "images-note"].includes(part.id));
  for (const part of parts) part.hidden = Boolean(gallery.open);
  if (gallery.open) {
    note("images-note", gallery.open);
    return;
  }
  for (const slot of gallerySlots) data[slot] = gallery[slot];
  state.other = 1;
  fillGallery();
  const ofSeeds = gallery.models.filter((model) => trained.includes(model.name));
  const first = new Set(ofSeeds.map((model) => model.seed));
  const which = first.size === 1 ? `of seed ${ofSeeds[0].seed}` : "of the first seed that has maps";
  const without = gallery.without.length ? ` There are no maps of ${gallery.without.join(", ")}.` : "";
  note("images-note", `${plural(gallery.images.length, "image")}, evenly spread over the split, as the run ${which} ` +
    `predicts them.${without} ${gallery.why_no_photos}`.trim());
  showPictures();
}

function showPictures() {
  fillChoices();
  byId("right").value = `model${state.other}`;
  showImages();
}

function showSources() {
  const short = (sha) => (sha ? make("code", { title: sha }, sha.slice(0, 12)) : "–");
  const sha = (title, key) => ({ title, value: (r) => r[key], cell: (r) => short(r[key]) });
  const of = (model) => (trained.includes(model.model) ? count(model.seed) : "–");
  byId("sources").hidden = !data.sources.length;
  note("sources-note", "The first digits of the sha256 of each run's records (their manifest), weights and flags. " +
    "study.json beside this page has them whole. kseg compare --verify computes every number of this report again from " +
    "counts/, which has what each run got right in every image.");
  showTable("sources-table", [
    words("model", (r) => r.model, (r) => named(r.model)), words("data", (r) => r.data, (r) => named(r.data)),
    { title: "seed", value: (r) => r.seed, cell: of },
    sha("records", "manifest_sha256"), sha("weights", "weights_sha256"), sha("flags", "flags_sha256"),
    words("kseg", (r) => r.kseg_version, (r) => r.kseg_version),
  ], data.sources);
}

function showBroken() {
  byId("broken").hidden = !data.broken.length;
  byId("broken-list").replaceChildren(...data.broken.flatMap((run) => [
    make("h3", {}, ...breakable(run.run), make("span", { class: "quiet" }, ` exit code ${run.code}`)),
    make("p", { class: "quiet" }, ...breakable(run.log)), make("pre", {}, run.end.join("\n"))]));
}

function showStudy() {
  showVerdict();
  showPairs();
  showRuns();
  showCurves();
  showClasses();
  showGroups();
  showObjects();
  showCosts();
  showGallery();
}

byId("results").hidden = data.sections.length < 2;
fill("section", data.sections.map((one, i) => [i, `${one.data}, split ${one.split}`]));
byId("images").querySelector(".controls").prepend(byId("pair"));
byId("section").addEventListener("change", () => { section = data.sections[Number(byId("section").value)]; showStudy(); });
byId("curve").addEventListener("change", drawCurves);
byId("size").addEventListener("change", showGains);
byId("swallower").addEventListener("change", showSwallowed);
byId("other").addEventListener("change", () => { state.other = Number(byId("other").value); showPictures(); });
listen();
showStudy();
showSources();
showBroken();
