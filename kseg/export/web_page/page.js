"use strict";
// The page of a web export. It has three parts: the models, the pictures that go in, and what is drawn.

const $ = (id) => document.getElementById(id);
const AGREE = 0.995; // of the labels of the picture that kseg sends along
const VIRIDIS = [[68, 1, 84], [49, 104, 142], [53, 183, 121], [253, 231, 37]];
const state = { models: [], picture: null, found: [], position: 0, video: null, busy: false };
window.ksegPage = state; // what scripts can read

function say(text) {
  $("status").textContent = text;
}

function complain(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

// ---- the models

async function bytes(base64) {
  const packed = await fetch("data:application/octet-stream;base64," + base64);
  const plain = packed.body.pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).arrayBuffer();
}

// Where the worker imports ONNX Runtime from. In a page of a file, browsers take only data: addresses; the threads of a
// served page need one of its own origin.
function runtimeAddress() {
  const text = $("runtime-code").textContent;
  if (location.protocol === "file:") return "data:text/javascript;charset=utf-8," + encodeURIComponent(text);
  return URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
}

class Model {
  constructor(facts) {
    this.facts = facts;
    this.asked = new Map();
    this.number = 0;
    const code = $("worker-code").textContent;
    this.worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    this.worker.onmessage = ({ data }) => {
      const { resolve, reject } = this.asked.get(data.id);
      this.asked.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data);
    };
    this.worker.onerror = (event) => {
      for (const { reject } of this.asked.values()) reject(new Error(event.message || "the worker stopped"));
      this.asked.clear();
    };
  }

  ask(task, data, moved = []) {
    this.number += 1;
    const id = this.number;
    return new Promise((resolve, reject) => {
      this.asked.set(id, { resolve, reject });
      this.worker.postMessage({ id, task, ...data }, moved);
    });
  }

  label(pixels, width, height) {
    return this.ask("run", { pixels, width, height });
  }

  // Opens the model on a device and compares its labels of one picture with those that kseg found: too few are a fault.
  async open(device) {
    const code = runtimeAddress();
    const wasm = await bytes(window.ksegRuntime);
    const model = await bytes(this.facts.model);
    const { threads } = await this.ask("load", { code, wasm, model, device }, [wasm, model]);
    const { width, height, pixels, labels } = this.facts.check;
    const expected = new Uint8Array(await bytes(labels));
    const found = await this.label(new Uint8Array(await bytes(pixels)), width, height);
    let equal = 0;
    expected.forEach((label, i) => { equal += label === found.labels[i]; });
    if (equal < AGREE * expected.length) {
      this.fault = `${(100 * equal / expected.length).toFixed(1)} % of its labels here are those that kseg found`;
    }
    this.device = device === "webgpu" ? "WebGPU" : `WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}`;
    return this;
  }

  static async start(facts) {
    const adapter = navigator.gpu && await navigator.gpu.requestAdapter().catch(() => null);
    let note = "";
    if (adapter) {
      const model = new Model(facts);
      try {
        await model.open("webgpu");
        if (!model.fault) return model;
        throw new Error(model.fault);
      } catch (error) {
        model.worker.terminate();
        note = ` WebGPU is not used: ${error.message}.`;
      }
    }
    const model = new Model(facts);
    await model.open("wasm");
    model.device += note;
    if (model.fault) {
      state.refused = model; // where a script finds what it labels
      throw new Error(model.fault);
    }
    return model;
  }
}

async function addModel(text) {
  const facts = JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1));
  if (!facts.model || !facts.classes || !facts.check) throw new Error("it is not the model.js of a web export");
  say(`Starting ${facts.name}.`);
  const model = await Model.start(facts);
  state.models[1]?.worker.terminate();
  state.models[1] = model;
  setPosition(50);
  showFacts();
  await labelPicture();
}

// ---- the pictures that go in

function longest() {
  return Number($("side").value) || Infinity;
}

// Takes an image, a frame of a video or of a camera: as RGB bytes, no larger than the longest side.
function take(source, width, height) {
  const scale = Math.min(1, longest() / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const pixels = new Uint8Array(canvas.width * canvas.height * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    pixels[j++] = rgba[i];
    pixels[j++] = rgba[i + 1];
    pixels[j++] = rgba[i + 2];
  }
  return { pixels, rgba, width: canvas.width, height: canvas.height };
}

async function takePhotograph(file) {
  stopVideo();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image",
      premultiplyAlpha: "none",
      colorSpaceConversion: "none",
    });
  } catch {
    throw new Error(`this browser cannot read ${file.name} as a picture. Use PNG or JPEG`);
  }
  state.source = { bitmap, name: file.name };
  await labelPicture();
}

async function labelPicture() {
  if (state.video) return; // its next frame comes anyway
  if (!state.source) return;
  const { bitmap } = state.source;
  state.picture = take(bitmap, bitmap.width, bitmap.height);
  await labelTaken();
}

async function labelTaken() {
  const { pixels, width, height } = state.picture;
  const found = [];
  for (const model of state.models) found.push(await model.label(pixels.slice(), width, height));
  state.found = found;
  state.shown = { ...state.picture };
  $("hint").hidden = true;
  $("save").disabled = false;
  const seconds = found.map((each) => each.seconds.toFixed(2)).join(" s and ");
  say(`Labelled ${width} x ${height} pixels in ${seconds} s (${state.models[0].device}).`);
  draw();
}

async function takeVideo(video) {
  stopVideo();
  state.video = video;
  $("video-buttons").hidden = false;
  await video.play();
  while (state.video === video) {
    if (video.readyState >= 2 && video.videoWidth) {
      state.picture = take(video, video.videoWidth, video.videoHeight);
      await labelTaken();
      if (Number.isFinite(video.duration)) $("time").value = String(1000 * video.currentTime / video.duration);
    }
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
}

function newVideo() {
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.loop = true;
  return video;
}

function stopVideo() {
  const video = state.video;
  state.video = null;
  $("video-buttons").hidden = true;
  $("play").textContent = "Pause";
  if (!video) return;
  video.pause();
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  if (video.src) URL.revokeObjectURL(video.src);
}

async function takeFile(file) {
  if (file.type.startsWith("video/")) {
    const video = newVideo();
    video.src = URL.createObjectURL(file);
    await new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = () => reject(new Error(`this browser cannot play ${file.name}`));
    });
    $("time").disabled = false;
    await takeVideo(video);
  } else if (file.name.endsWith(".js")) await addModel(await file.text());
  else await takePhotograph(file);
}

async function takeCamera() {
  const video = newVideo();
  if (!navigator.mediaDevices) throw new Error("this browser gives no camera to a page of a file: serve the folder");
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  $("time").disabled = true;
  await takeVideo(video);
}

// ---- what is drawn

function heat(value) {
  const place = Math.min(0.9999, Math.max(0, value)) * (VIRIDIS.length - 1);
  const i = Math.floor(place);
  return VIRIDIS[i].map((from, c) => from + (place - i) * (VIRIDIS[i + 1][c] - from));
}
const HEAT = Array.from({ length: 256 }, (_, i) => heat(i / 255));

// One side of the divider, RGBA: the photograph, or what a model found laid over it.
function side(number) {
  const { rgba } = state.shown;
  const found = state.found[number];
  if (!found) return rgba;
  const strength = Number($("strength").value) / 100;
  const sure = $("show").value === "confidence";
  const { palette } = state.models[number].facts;
  const out = new Uint8ClampedArray(rgba.length);
  for (let i = 0, j = 0; i < found.labels.length; i += 1, j += 4) {
    const colour = sure ? HEAT[Math.round(255 * Math.min(1, found.confidence[i]))] : palette[found.labels[i]];
    for (let c = 0; c < 3; c += 1) out[j + c] = rgba[j + c] + strength * (colour[c] - rgba[j + c]);
    out[j + 3] = 255;
  }
  return out;
}

function draw() {
  if (!state.shown) return;
  const { width, height } = state.shown;
  const view = $("view");
  if (view.width !== width) view.width = width;
  if (view.height !== height) view.height = height;
  $("stage").style.width = `min(100%, ${(75 * width / height).toFixed(2)}vh)`; // no picture is higher than the screen
  const two = state.found.length > 1;
  const left = side(two ? 0 : -1);
  const right = side(two ? 1 : 0);
  const border = Math.round(width * state.position / 100);
  const out = new ImageData(new Uint8ClampedArray(right), width, height);
  for (let y = 0; y < height; y += 1) {
    const from = 4 * y * width;
    out.data.set(left.subarray(from, from + 4 * border), from);
  }
  view.getContext("2d").putImageData(out, 0, 0);
  const names = two ? state.models.map((model) => model.facts.name) : ["photograph", $("show").value];
  $("left-name").textContent = names[0];
  $("right-name").textContent = names[1];
  $("left-name").hidden = border < 0.08 * width;
  $("right-name").hidden = border > 0.92 * width;
  $("divider").hidden = false;
  $("divider").style.left = `${state.position}%`;
  $("scale").hidden = $("show").value !== "confidence";
  drawLegend();
}

function sharesOf(number) {
  const { labels, confidence } = state.found[number];
  const { classes, palette } = state.models[number].facts;
  const counts = new Array(classes.length).fill(0);
  const sums = new Array(classes.length).fill(0);
  labels.forEach((label, i) => {
    counts[label] += 1;
    sums[label] += confidence[i];
  });
  return classes.map((name, i) => ({
    name,
    colour: `rgb(${palette[i].join(" ")})`,
    share: counts[i] / labels.length,
    confidence: sums[i] / Math.max(1, counts[i]),
  }));
}

function cell(text, kind = "td") {
  const made = document.createElement(kind);
  made.textContent = text;
  return made;
}

function percent(value) {
  return value > 0 && value < 0.0005 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`;
}

function drawLegend() {
  const two = state.found.length > 1;
  const rows = new Map();
  state.found.forEach((_, number) => {
    for (const one of sharesOf(number)) {
      const key = `${one.name} ${one.colour}`;
      if (!rows.has(key)) rows.set(key, { ...one, shares: [0, 0] });
      rows.get(key).shares[number] = one.share;
    }
  });
  const shown = [...rows.values()].filter((row) => Math.max(...row.shares) > 0);
  shown.sort((a, b) => Math.max(...b.shares) - Math.max(...a.shares));
  const body = $("legend").tBodies[0];
  body.replaceChildren(...shown.map((row) => {
    const line = document.createElement("tr");
    const name = cell("", "th");
    name.className = "words";
    const colour = document.createElement("span");
    colour.className = "colour";
    colour.style.background = row.colour;
    name.append(colour, row.name);
    const sure = row.shares[0] > 0 ? row.confidence.toFixed(2) : "";
    line.append(name, cell(percent(row.shares[0])), ...(two ? [cell(percent(row.shares[1]))] : []), cell(sure));
    return line;
  }));
  $("legend").hidden = false;
  $("second-share").hidden = !two;
  $("first-share").textContent = two ? `share, ${state.models[0].facts.name}` : "share";
  $("second-share").textContent = two ? `share, ${state.models[1].facts.name}` : "share";
}

function showFacts() {
  const lines = state.models.flatMap(({ facts, device }) => [
    ["model", facts.name],
    ["runs on", device],
    ...Object.entries(facts.facts || {}),
  ]);
  $("facts").replaceChildren(...lines.flatMap(([name, value]) => [cell(name, "dt"), cell(String(value), "dd")]));
}

function setPosition(percentage) {
  state.position = Math.min(100, Math.max(0, percentage));
  $("position").value = String(state.position);
  $("stage").setAttribute("aria-valuenow", String(Math.round(state.position)));
  draw();
}

// ---- what the user does

// Runs one thing after another; what fails is said, and the page goes on.
let queue = Promise.resolve();
function doing(work) {
  queue = queue.then(async () => {
    complain("");
    try {
      await work();
    } catch (error) {
      complain(`That did not work: ${error.message}.`);
    }
  });
  return queue;
}

function begin(work) {
  stopVideo(); // else the queue waits for its end
  return doing(work);
}

function listen() {
  for (const id of ["photograph", "video-file", "second"]) {
    $(id).addEventListener("change", ({ target }) => {
      const file = target.files[0];
      if (file) begin(() => takeFile(file));
      target.value = "";
    });
  }
  $("camera").addEventListener("click", () => begin(takeCamera));
  $("stop").addEventListener("click", stopVideo);
  $("play").addEventListener("click", () => {
    const { video } = state;
    if (!video) return;
    if (video.paused) video.play();
    else video.pause();
    $("play").textContent = video.paused ? "Play" : "Pause";
  });
  $("time").addEventListener("input", ({ target }) => {
    if (state.video?.duration) state.video.currentTime = state.video.duration * Number(target.value) / 1000;
  });
  $("show").addEventListener("change", draw);
  $("strength").addEventListener("input", draw);
  $("position").addEventListener("input", ({ target }) => setPosition(Number(target.value)));
  $("side").addEventListener("change", () => { if (!state.video) doing(labelPicture); });
  $("save").addEventListener("click", () => $("view").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = "labels.png";
    link.click();
    URL.revokeObjectURL(link.href);
  }));
  const stage = $("stage");
  const toPointer = (event) => {
    const box = $("view").getBoundingClientRect();
    setPosition(100 * (event.clientX - box.left) / box.width);
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    toPointer(event);
  });
  stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) toPointer(event); });
  stage.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -2, ArrowDown: -2, ArrowRight: 2, ArrowUp: 2, PageDown: -10, PageUp: 10, Home: -100, End: 100 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    setPosition(state.position + steps[event.key]);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
  document.addEventListener("dragleave", () => stage.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) begin(() => takeFile(file));
  });
}

async function main() {
  listen();
  if (!window.ksegModel || !window.ksegRuntime) {
    throw new Error("model.js and runtime.js must lie beside this page");
  }
  state.models = [await Model.start(window.ksegModel)];
  showFacts();
  say(`Ready: ${state.models[0].facts.classes.length} classes, ${state.models[0].device}.`);
}
doing(main);
