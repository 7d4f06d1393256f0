// Tables. Every table sorts by any column; what has no value stays last.

const sorting = {}; // table id -> {column, down}

function compareValues(a, b) {
  return typeof a === "string" ? a.localeCompare(b) : a - b;
}

// columns: {title, value(row), cell(row), words: sorts upwards first}. rows: any, in their own order.
// On a phone each row is a block of lines, which is why cells carry their title and all parts their role.
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
    const about = { scope: "col", role: "columnheader", "aria-sort": direction, class: column.words ? "words" : "" };
    return make("th", about, button);
  });
  const body = sorted.map((row) => make("tr", { role: "row" }, ...columns.map((c, i) => tableCell(row, c, i))));
  byId(id).replaceChildren(make("table", { role: "table" },
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...head)),
    make("tbody", { role: "rowgroup" }, ...body)));
}

function tableCell(row, column, i) {
  const kind = column.words ? "words" : "";
  if (!i) return make("th", { scope: "row", role: "rowheader", class: kind }, column.cell(row));
  const title = column.short ?? column.title.textContent ?? column.title;
  return make("td", { role: "cell", class: kind, "data-title": parts(title).join("\u200b") }, make("span", {}, column.cell(row)));
}

function bar(value, model, digits = 3) {
  if (value === null) return number(value);
  const fill = make("span", { class: `fill ${side(model)}`, style: { width: `${100 * value}%` } });
  return make("span", { class: "bar" }, make("span", { class: "track" }, fill), make("span", {}, number(value, digits)));
}

const title = (model, text) => make("span", {}, modelName(model), text ? ` ${text}` : "");
// A column for each model: of(row, model) shown by show(value, model).
function modelColumns(of, show, some = models()) {
  return [...some].map((m) => ({ title: title(m), value: (r) => of(r, m), cell: (r) => show(of(r, m), m) }));
}

const words = (text, value, cell = value) => ({ title: text, value, cell, words: true });

// An interval of a difference, from -reach to reach; `whose` colours it where it does not hold 0.
function forest([low, high], reach, whose) {
  const [from, to] = [low, high].map((end) => 50 + (50 * end) / reach);
  const span = make("span", { class: `span ${whose}`, style: { left: `${from}%`, width: `${to - from}%` } });
  return make("span", { class: "forest", "aria-hidden": "true" }, make("span", { class: "zero" }), span);
}

// A difference; bold only where its interval does not hold 0.
const difference = (text, whose) => make(whose ? "strong" : "span", { class: whose }, text);
