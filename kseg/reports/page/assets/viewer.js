// The viewer: two pictures of an image with a divider between them.

const viewer = byId("viewer");
const stage = byId("stage");
let current = 0; // index of the image shown

function choices() {
  const photos = data.photos === false ? [] : [["photos", "photograph"]];
  return [...[...models()].map((m) => [`model${m}`, name(m)]), ["truth", "truth"], ...photos, ["right", "who is right"]];
}

function openViewer(index) {
  current = index;
  showCurrent();
  if (!viewer.open) viewer.showModal();
}

function showSide(id) {
  const choice = byId(id).value;
  const [photo, labels] = byId(`${id}-side`).querySelectorAll("img");
  photo.hidden = data.photos === false;
  if (!photo.hidden) photo.src = picture("photos", current, ".jpg");
  labels.hidden = choice === "photos";
  if (labels.hidden) labels.removeAttribute("src");
  else labels.src = picture(choice === "right" ? `right${state.other}` : choice, current, ".png");
  labels.classList.toggle("full", choice === "right" || photo.hidden); // its marks have an opacity of their own
  const text = byId(id).selectedOptions[0].textContent;
  labels.alt = labels.hidden ? "" : `${text} of ${data.images[current].name}`;
  photo.alt = labels.hidden ? `photograph ${data.images[current].name}` : "";
}

function showCurrent() {
  const image = data.images[current];
  const place = shown.indexOf(current);
  byId("viewer-name").textContent = image.name;
  const differ = percent(image.disagreement[state.other]);
  byId("viewer-place").textContent = `${place + 1} of ${shown.length}, they differ on ${differ}`;
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place < 0 || place + 1 >= shown.length;
  viewer.style.setProperty("--ratio", image.size[0] / image.size[1]);
  for (const id of ["left", "right"]) showSide(id);
  byId("right-legend").replaceChildren(...marksLegend());
  byId("right-legend").hidden = byId("left").value !== "right" && byId("right").value !== "right";
  showImageTable(image);
}

function showImageTable(image) {
  const pair = [0, state.other];
  const rows = data.classes.map((text, id) => ({ text, id, values: pair.map((m) => image.iou[m][id]) }))
    .filter((row) => row.values.some((value) => value !== null))
    .map((row) => ({ ...row, gain: row.values.includes(null) ? null : shownGap(row.values[1], row.values[0], 3) }));
  const values = modelColumns((row, m) => row.values[pair.indexOf(m)], bar, pair);
  const gain = { title: "difference", value: (r) => r.gain, cell: (r) => signed(r.gain) };
  const cell = (r) => make("span", { class: "class" }, swatch(r.id), r.text);
  showTable("viewer-table", [words("IoU in this image", (r) => r.text, cell), ...values, gain], rows);
}

function step(by) {
  const place = shown.indexOf(current) + by;
  if (place < 0 || place >= shown.length) return;
  while (placed <= place) placeMore();
  current = shown[place];
  showCurrent();
  const ahead = shown[place + by];
  if (ahead !== undefined) for (const [folder] of choices().slice(0, 2)) new Image().src = picture(folder, ahead, ".png");
}

function divide(value) {
  byId("slider").value = value;
  stage.style.setProperty("--at", `${byId("slider").value}%`);
}

function swap() {
  const [left, right] = [byId("left").value, byId("right").value];
  [byId("left").value, byId("right").value] = [right, left];
  showCurrent();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const chooses = event.target.matches("select, #opacity");
  const far = event.shiftKey ? 10 : 2;
  const moves = { ArrowLeft: -far, ArrowRight: far, ArrowDown: -far, ArrowUp: far };
  const onSlider = event.target.matches("#slider");
  if (!chooses && (event.key === "ArrowLeft" || event.key === "ArrowRight" || (onSlider && event.key in moves))) {
    divide(Number(byId("slider").value) + moves[event.key]);
  } else if (!event.target.matches("select") && event.key.toLowerCase() === "n") step(1);
  else if (!event.target.matches("select") && event.key.toLowerCase() === "p") step(-1);
  else if (!event.target.matches("select") && event.key.toLowerCase() === "s") swap();
  else return;
  event.preventDefault();
}

function drag(event) {
  if (!event.buttons) return;
  const box = stage.getBoundingClientRect();
  divide((100 * (event.clientX - box.left)) / box.width);
}

function listen() {
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => viewer.close());
  byId("swap").addEventListener("click", swap);
  byId("slider").addEventListener("input", () => divide(byId("slider").value));
  byId("opacity").addEventListener("input", () => stage.style.setProperty("--opacity", byId("opacity").value / 100));
  for (const id of ["left", "right"]) byId(id).addEventListener("change", showCurrent);
  viewer.addEventListener("keydown", onKey);
  viewer.addEventListener("close", () => document.querySelector(`.card[data-index="${current}"]`)?.focus());
  stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); drag(event); });
  stage.addEventListener("pointermove", drag);
  stage.addEventListener("dragstart", (event) => event.preventDefault());
  for (const id of ["sort", "class"]) byId(id).addEventListener("change", showImages);
  byId("marks").addEventListener("change", () => byId("grid").classList.toggle("plain", !byId("marks").checked));
}

