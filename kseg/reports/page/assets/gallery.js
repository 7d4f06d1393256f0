// The images: filtered, sorted, and put on the page a screenful at a time.

const STEP = 60; // cards at a time: the page opens as fast with thousands of images
let shown = []; // indices of the images that pass the filter, in their order
let placed = 0; // how many of them have a card

const chosenClass = () => (byId("class").value === "" ? null : Number(byId("class").value));
const picture = (folder, index, rest) => `${data.folder ?? ""}${folder}/${String(index).padStart(5, "0")}${rest}`;

// A model's score on an image: of the chosen class, or the mean over classes.
function imageScore(image, model) {
  const id = chosenClass();
  return id === null ? image.mean_iou[model] : image.iou[model][id];
}

// How far the other model is ahead of the first; null where an image has nothing to score.
function lead(image) {
  const [first, other] = [imageScore(image, 0), imageScore(image, state.other)];
  return first === null || other === null ? null : other - first;
}

const negative = (value) => (value === null ? null : -value);

function fill(id, choices) {
  byId(id).replaceChildren(...choices.map(([value, text]) => option(value, text)));
}

// The choices of the gallery and its viewer, for the models and classes of `data`.
function fillGallery() {
  byId("pair").hidden = data.models.length < 3;
  fill("other", [...models()].slice(1).map((m) => [m, name(m)]));
  const there = new Set(data.images.flatMap((image) => image.classes));
  fill("class", [["", "all"], ...[...data.classes.entries()].filter(([id]) => there.has(id))]);
  fill("left", choices());
  fill("right", choices());
  byId("left").value = "model0";
}

// What comes first: the largest value; images without one come last.
const ORDERS = {
  disagreement: [() => "disagreement", (image) => image.disagreement[state.other]],
  first: [() => `${name(0)} ahead`, (image) => negative(lead(image))],
  other: [() => `${name(state.other)} ahead`, lead],
  firstWorst: [() => `${name(0)} lowest`, (image) => negative(imageScore(image, 0))],
  otherWorst: [() => `${name(state.other)} lowest`, (image) => negative(imageScore(image, state.other))],
  name: [() => "name", null],
};

function fillChoices() {
  const sort = byId("sort").value || "disagreement";
  byId("sort").replaceChildren(
    ...Object.entries(ORDERS).map(([key, [text]]) => option(key, text())));
  byId("sort").value = sort;
  byId("marks-legend").replaceChildren(...marksLegend());
}

function showImages() {
  const id = chosenClass();
  const order = ORDERS[byId("sort").value][1];
  shown = [...data.images.keys()].filter((i) => id === null || data.images[i].classes.includes(id));
  if (order) {
    const value = new Map(shown.map((i) => [i, order(data.images[i]) ?? -Infinity]));
    shown.sort((a, b) => value.get(b) - value.get(a) || a - b);
  }
  placed = 0;
  byId("grid").replaceChildren();
  byId("count").textContent = `${shown.length} of ${data.images.length} images`;
  placeMore();
}

function placeMore() {
  const cards = shown.slice(placed, placed + STEP).map(card);
  placed += cards.length;
  byId("grid").append(...cards);
  // The observer speaks of changes only: ask anew while its mark may still be in sight.
  if (placed < shown.length) {
    watcher.unobserve(byId("more"));
    watcher.observe(byId("more"));
  }
}

const watcher = new IntersectionObserver(
  (entries) => { if (entries.some((entry) => entry.isIntersecting) && placed < shown.length) placeMore(); },
  { rootMargin: "600px" });

function card(index) {
  const image = data.images[index];
  const [width, height] = image.size;
  const scores = [0, state.other].map((m) => number(imageScore(image, m)));
  const differ = percent(image.disagreement[state.other]);
  const label = `${image.name}: they differ on ${differ} of the pixels; ` +
    `${name(0)} ${scores[0]}, ${name(state.other)} ${scores[1]}`;
  const thumb = (rest, kind) =>
    make("img", { class: kind, loading: "lazy", src: picture("thumbnails", index, rest), alt: "", width, height });
  const facts = make("span", { class: "facts" },
    make("span", { class: "model first" }, scores[0]), make("span", { class: "model other" }, scores[1]),
    make("span", { class: "quiet" }, `differ ${differ}`));
  const button = { type: "button", class: "card", "data-index": index, "aria-label": label };
  return make("li", {},
    make("button", { ...button, onclick: () => openViewer(index) },
      make("span", { class: "thumb" }, thumb(data.photos === false ? ".png" : ".jpg", "photo"), thumb(`.${state.other}.png`, "marks")),
      make("span", { class: "name" }, image.name), facts));
}
