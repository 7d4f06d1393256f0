// The model, beside the page: so that the page answers while it computes. Messages: {id, task, ...} -> {id, ...}.
let ort = null;
let session = null;

async function load({ code, wasm, model, device }) {
  if (!ort) {
    ort = await import(code);
    ort.env.wasm.wasmBinary = wasm;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
    ort.env.logLevel = "error";
  }
  session = await ort.InferenceSession.create(model, {
    executionProviders: [device],
    graphOptimizationLevel: "all",
  });
  return { threads: device === "wasm" ? ort.env.wasm.numThreads : 0 };
}

async function run({ pixels, width, height }) {
  const begin = performance.now();
  const images = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
  const found = await session.run({ [session.inputNames[0]]: images }, ["labels", "confidence"]);
  const labels = await found.labels.getData();
  const confidence = await found.confidence.getData();
  return { labels: new Uint8Array(labels), confidence: new Float32Array(confidence), seconds: (performance.now() - begin) / 1000 };
}

self.onmessage = async ({ data }) => {
  try {
    const answer = await { load, run }[data.task](data);
    const moved = answer.labels ? [answer.labels.buffer, answer.confidence.buffer] : [];
    self.postMessage({ id: data.id, ...answer }, moved);
  } catch (error) {
    self.postMessage({ id: data.id, error: String((error && error.message) || error) });
  }
};
