// The page of a comparison: verdict and tables, and what starts it.

function differenceColumns(rows, found) {
  const reach = Math.max(...rows.flatMap((row) => drawn(found(row)).map((end) => Math.abs(end ?? 0))), 1e-9);
  const gap = (row) => {
    if (found(row).difference === null) return "–";
    return signed(shownGap(row.values[state.other], row.values[0], found(row).digits), found(row).digits);
  };
  const cell = (row) => {
    const it = found(row);
    if (drawn(it)[0] === null) return "–";
    const text = make("span", {}, interval(drawn(it), it.digits));
    return make("span", { class: "interval" }, forest(drawn(it), reach, winner(it)), text);
  };
  const columns = [
    { title: make("span", {}, make("span", { class: "which" }, ...breakable(`${name(state.other)} − ${name(0)}`)), " difference"),
      short: "difference",
      value: (r) => found(r).difference,
      cell: (r) => difference(gap(r), winner(found(r))) },
    { title: `95 % interval by ${data.bootstrap.unit}`, value: (r) => drawn(found(r))[0], cell },
  ];
  if (data.bootstrap.groups.length) {
    const low = (r) => found(r).by_image[0];
    columns.push({ title: "by image", value: low, cell: (r) => interval(found(r).by_image, found(r).digits) });
  }
  return columns;
}

function showScores() {
  const rows = data.scores.filter((row) => row.key !== "jaccard"); // the first row has it
  const found = (row) => row.differences[state.other];
  const values = [...models()].map((m) => ({
    title: title(m), value: (r) => r.values[m], cell: (r) => number(r.values[m], found(r).digits) }));
  showTable("scores-table", [words("score", (r) => r.title), ...values, ...differenceColumns(rows, found)], rows);
  const { resamples, groups, unit, meaning } = data.bootstrap;
  const what = groups.length ? `the ${unit}s of the ${data.images.length} images` : `the ${data.images.length} images`;
  const single = groups.length ? " By image: single images were resampled; similar frames make that too narrow." : "";
  byId("meaning").textContent =
    `Means are over ${countOfClasses()}: those of the truth, the same for all models. A class that a model predicts ` +
    "but the truth lacks is left out of the means here; kseg.evaluate counts it as IoU 0. " +
    `The interval: ${what} were resampled ${count(resamples)} times with replacement, and all models scored on the ` +
    `same samples; 95 % of the differences lie in it.${single} No model was trained again, so it says nothing about ` +
    "other seeds.";
  byId("groups").textContent = meaning;
}

function showClasses() {
  const total = data.per_class.reduce((sum, row) => sum + row.pixels, 0);
  const rows = data.per_class.map((row, id) => ({ ...row, id, share: total ? row.pixels / total : null }));
  const show = (row) => {
    if (!row.pixels) return make("span", { class: "class" }, swatch(row.id), data.classes[row.id]); // it has no images
    const click = () => { byId("class").value = row.id; showImages(); byId("images").scrollIntoView(); };
    return make("button", { type: "button", class: "class", onclick: click }, swatch(row.id), data.classes[row.id]);
  };
  const values = [...models()].map((m) => ({
    title: title(m), value: (r) => r.values[m], cell: (r) => bar(r.values[m], m, r.differences[state.other].digits) }));
  const share = { title: "pixels", value: (r) => r.share, cell: (r) => percent(r.share) };
  const differences = differenceColumns(rows, (row) => row.differences[state.other]);
  showTable("classes-table", [words("class", (r) => data.classes[r.id], show), ...values, ...differences, share], rows);
}

function foundColumns() {
  const columns = [{ title: "objects", value: (r) => r.found[0].objects, cell: (r) => count(r.found[0].objects) }];
  columns.push(...modelColumns((row, m) => row.found[m].found, bar));
  const gain = (r) => (r.found[0].found === null ? null : shownGap(r.found[state.other].found, r.found[0].found, 3));
  columns.push({ title: "difference", value: gain, cell: (r) => signed(gain(r)) });
  return columns;
}

function swallowers(row) {
  const some = Object.entries(row).slice(0, 3);
  return some.length ? some.map(([other, n]) => `${other}\u00a0${n}`).join(", ") : "–";
}

function showObjects() {
  const size = byId("size").value;
  const pick = (row) => (size ? row.by_size[size] : row);
  const rows = data.classes.map((text, id) => {
    const each = data.objects.map((objects) => objects.per_class[text]);
    return { text, id, found: each.map(pick), from: each[0].objects_from, by: each.map((row) => row.swallowed_by) };
  }).filter((row) => row.found[0].objects);
  const columns = [
    words("class", (r) => r.text, (r) => make("span", { class: "class" }, swatch(r.id), r.text)),
    ...foundColumns(),
  ];
  for (const m of [0, state.other]) {
    columns.push(words(title(m, "missed, taken for"), (r) => swallowers(r.by[m])));
  }
  columns.push(words("objects are", (r) => (r.from === "instances" ? "instances" : "regions")));
  showTable("objects-table", columns, rows);
}

function showSizes() {
  const [first] = data.objects;
  byId("objects-rule").textContent =
    `Found: at least ${100 * first.overlap} % of the object's pixels are predicted as its class. Objects are the ` +
    "instances of the records where a class has any, else connected regions of its truth. Sizes in pixels.";
  const each = (key, text) => data.objects.map((objects) => objects[key][text]);
  const rows = Object.keys(first.by_size).map((text, order) => ({ text, order, found: each("by_size", text) }));
  rows.push({ text: "all", order: rows.length, found: data.objects });
  showTable("sizes-table", [words("pixels", (r) => r.order, (r) => r.text), ...foundColumns()], rows);
  const near = Object.keys(first.error_by_distance)
    .map((text, order) => ({ text, order, each: each("error_by_distance", text) }));
  const columns = modelColumns((row, m) => row.each[m].error_rate, bar);
  const pixels = { title: "pixels", value: (r) => r.each[0].pixels, cell: (r) => count(r.each[0].pixels) };
  showTable("distance-table", [words("distance", (r) => r.order, (r) => r.text), ...columns, pixels], near);
}

// "18 of 19 classes (without train)": as kseg.metrics.scores.count_of_classes
function countOfClasses() {
  const scored = data.scored_classes;
  const without = data.classes.filter((text) => !scored.includes(text));
  if (!without.length) return `all ${data.classes.length} classes`;
  const names = without.length <= scored.length ? `without ${without.join(", ")}` : scored.join(", ") || "none";
  return `${scored.length} of ${data.classes.length} classes (${names})`;
}

// The verdict is a sentence of comparison.json; a winner is named first.
function verdict({ winner: ahead, text }) {
  if (ahead === null) return breakable(withMinus(text));
  return [modelName(ahead), ...breakable(withMinus(text.slice(name(ahead).length)))];
}

function showVerdict() {
  byId("title").replaceChildren(...[...models()].flatMap((m) => (m ? [" against ", modelName(m)] : [modelName(m)])));
  byId("subtitle").textContent =
    `${data.images.length} images of ${data.data_dir}, split ${data.split}, ${data.classes.length} classes ` +
    `(${data.label_set}), protocol ${data.protocol}, each image at its label's own size. kseg ${data.kseg_version}.`;
  const [row] = data.scores;
  byId("verdict").replaceChildren(...verdict(data.verdicts[state.other]));
  const tile = (m) => {
    const facts = [[`mean IoU, ${data.scored_classes.length} classes`, row.values[m]],
      ["pixel accuracy", data.scores[1].values[m]],
      ["objects found, mean of classes", data.objects[m].mean_found]];
    const list = facts.flatMap(([text, value]) => [make("dt", {}, text), make("dd", {}, number(value))]);
    return make("div", { class: `tile ${side(m)}` }, make("h3", {}, modelName(m)), make("dl", {}, ...list));
  };
  byId("tiles").replaceChildren(...[...models()].map(tile));
}

function showTables() {
  showVerdict();
  showScores();
  showClasses();
  showObjects();
  showSizes();
}

function showAll() {
  showTables();
  fillChoices();
  byId("right").value = `model${state.other}`;
  showImages();
}

fillGallery();
fill("size", [["", "all sizes"], ...Object.keys(data.objects[0].by_size).map((text) => [text, `${text} pixels`])]);
byId("size").addEventListener("change", showObjects);
byId("other").addEventListener("change", () => { state.other = Number(byId("other").value); showAll(); });
listen();
showAll();
