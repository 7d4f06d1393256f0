// Verdict and tables. Every table sorts by any column; what has no value stays last.

const sorting = {}; // table id -> {column, down}

function compareValues(a, b) {
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

// columns: {title, value(row), cell(row), words: sorts upwards first, wide}. rows: any, in their own order.
function showTable(id, columns, rows) {
  const order = sorting[id];
  const sorted = [...rows];
  if (order) {
    const { value } = columns[order.column];
    sorted.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return order.down ? compareValues(y, x) : compareValues(x, y);
    });
  }
  const head = columns.map((column, i) => {
    const direction = order?.column === i ? (order.down ? "descending" : "ascending") : "none";
    const click = () => {
      sorting[id] = { column: i, down: order?.column === i ? !order.down : !column.words };
      showTable(id, columns, rows);
      byId(id).querySelectorAll("th button")[i].focus();
    };
    const button = make("button", { type: "button", onclick: click });
    button.append(column.title);
    return make("th", { scope: "col", "aria-sort": direction, class: column.words ? "words" : "" }, button);
  });
  const body = sorted.map((row) =>
    make("tr", {}, ...columns.map((c, i) =>
      make(i ? "td" : "th", { scope: i ? null : "row", class: c.words ? "words" : "" }, c.cell(row)))));
  byId(id).replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)));
}

function bar(value, model) {
  if (value === null) return number(value);
  const fill = make("span", { class: `fill ${side(model)}`, style: { width: `${100 * value}%` } });
  return make("span", { class: "bar" }, make("span", { class: "track" }, fill), make("span", {}, number(value)));
}

const title = (model, text) => make("span", {}, modelName(model), text ? ` ${text}` : "");
// A column for each model: of(row, model) shown by show(value, model).
function modelColumns(of, show, some = models()) {
  return [...some].map((m) => ({ title: title(m), value: (r) => of(r, m), cell: (r) => show(of(r, m), m) }));
}

const words = (text, value, cell = value) => ({ title: text, value, cell, words: true });

function differenceColumns(rows, found) {
  const reach = Math.max(...rows.flatMap((row) => drawn(found(row)).map((end) => Math.abs(end ?? 0))), 1e-9);
  const forest = (row) => {
    const it = found(row);
    if (drawn(it)[0] === null) return "–";
    const [low, high] = drawn(it).map((v) => 50 + (50 * v) / reach);
    const span = make("span", { class: `span ${winner(it)}`, style: { left: `${low}%`, width: `${high - low}%` } });
    const graph = make("span", { class: "forest", "aria-hidden": "true" }, make("span", { class: "zero" }), span);
    return make("span", { class: "interval" }, graph, make("span", {}, interval(drawn(it))));
  };
  const columns = [
    { title: make("span", {}, make("span", { class: "which" }, `${name(state.other)} − ${name(0)} `), "difference"),
      value: (r) => found(r).difference,
      cell: (r) => make("strong", { class: winner(found(r)) }, signed(found(r).difference)) },
    { title: `95 % interval by ${data.bootstrap.unit}`, value: (r) => drawn(found(r))[0], cell: forest },
  ];
  if (data.bootstrap.groups.length) {
    const low = (r) => found(r).by_image[0];
    columns.push({ title: "by image", value: low, cell: (r) => interval(found(r).by_image) });
  }
  return columns;
}

function showScores() {
  const rows = data.scores.filter((row) => row.key !== "jaccard"); // the first row has it
  const values = modelColumns((row, m) => row.values[m], (value) => number(value));
  const found = (row) => row.differences[state.other];
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
  const values = modelColumns((row, m) => row.values[m], bar);
  const share = { title: "pixels", value: (r) => r.share, cell: (r) => percent(r.share) };
  const difference = differenceColumns(rows, (row) => row.differences[state.other]);
  showTable("classes-table", [words("class", (r) => data.classes[r.id], show), ...values, ...difference, share], rows);
}

function foundColumns() {
  const columns = [{ title: "objects", value: (r) => r.found[0].objects, cell: (r) => count(r.found[0].objects) }];
  columns.push(...modelColumns((row, m) => row.found[m].found, bar));
  const gain = (r) => (r.found[0].found === null ? null : r.found[state.other].found - r.found[0].found);
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

// The mean IoUs to four digits, and a difference that is the one of the numbers shown.
function verdict(row, found) {
  const digits = 4;
  const better = winner(found);
  const order = better === "first" ? [0, state.other] : [state.other, 0];
  const [high, low] = order.map((m) => number(row.values[m], digits));
  const more = signed(row.values[0] === null ? null : high - low, digits);
  if (better) {
    const ends = better === "first" ? drawn(found).map(negative).reverse() : drawn(found);
    const text = `: ${high} against ${low}, a difference of ${more} (95 % interval by ${data.bootstrap.unit} ` +
      `${interval(ends, digits)}).`;
    return [modelName(order[0]), " has the higher mean IoU", text];
  }
  return [
    `No clear winner by mean IoU: ${name(0)} ${low}, ${name(state.other)} ${high}, a difference of ${more} (95 % ` +
      `interval by ${data.bootstrap.unit} ${interval(drawn(found), digits)}; ${name(state.other)} is ahead in ` +
      `${percent(found.above)} of the resamples).`,
  ];
}

function showVerdict() {
  byId("title").replaceChildren(...[...models()].flatMap((m) => (m ? [" against ", modelName(m)] : [modelName(m)])));
  byId("subtitle").textContent =
    `${data.images.length} images of ${data.data_dir}, split ${data.split}, ${data.classes.length} classes ` +
    `(${data.label_set}), protocol ${data.protocol}, each image at its label's own size. kseg ${data.kseg_version}.`;
  const [row] = data.scores;
  const found = row.differences[state.other];
  byId("verdict").replaceChildren(...verdict(row, found));
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
