"use strict";
// What the other parts share: the numbers, elements, and how a number is written.

const data = JSON.parse(document.getElementById("numbers").textContent);
const state = { other: 1 }; // the model that the first is compared with
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") for (const [key, part] of Object.entries(value)) element.style.setProperty(key, part);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const number = (value, digits = 3) => (value === null ? "–" : value.toFixed(digits));
const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(value && value < 0.0995 ? 1 : 0)}\u00a0%`);
const count = (value) => value.toLocaleString("en");

function signed(value, digits = 3) {
  if (value === null) return "–";
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? `±${text}` : (value < 0 ? "−" : "+") + text;
}

// The difference of two numbers as they are shown.
const shownGap = (high, low, digits) => Number(high.toFixed(digits)) - Number(low.toFixed(digits));

const interval = (pair, digits = 3) =>
  (pair === null || pair[0] === null ? "–" : pair.map((end) => signed(end, digits)).join(" to "));
const name = (model) => data.models[model].name;
// Colours say which model: blue the first, orange the one compared with it.
const side = (model) => (model === 0 ? "first" : model === state.other ? "other" : "third");
// A text that may break behind the separators of a name.
const parts = (text) => text.split(/(?<=[^\s/_-][/_-])(?=[^\s/_-])/);
const breakable = (text) => parts(text).flatMap((part, i) => (i ? [make("wbr"), part] : [part]));
const modelName = (model) => make("span", { class: `model ${side(model)}` }, ...breakable(name(model)));
// The sentences of the numbers have hyphens for minus signs.
const withMinus = (text) => text.replace(/(?<=^|[\s(])-(?=\d)/g, "−");
const swatch = (id) => make("span", { class: "swatch", style: { background: `rgb(${data.palette[id].join(" ")})` } });
const models = () => data.models.keys();

function option(value, text) {
  return make("option", { value }, text);
}

function marksLegend() {
  const mark = (kind, text) =>
    make("span", {}, make("span", { class: `swatch mark-${kind}` }), " ", ...breakable(text));
  return [
    mark("first", `only ${name(0)} right`),
    mark("other", `only ${name(state.other)} right`),
    mark("wrong", "both wrong"),
  ];
}

// The interval that counts: of groups of images that belong together, where there are any.
const drawn = (found) => found.by_group ?? found.by_image;

// Which model an interval speaks for: "" where it holds 0.
function winner(found) {
  if (!found || drawn(found)[0] === null) return "";
  if (found.difference > 0 && drawn(found)[0] > 0) return "other";
  return found.difference < 0 && drawn(found)[1] < 0 ? "first" : "";
}
