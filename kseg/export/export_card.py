"""The model card of an export: README.md in its folder, or a text inside its file, with the Hub's metadata block."""

import os

from kseg.inference.hub import local_path
from kseg.inference.outside.file_kinds import TFLITE
from kseg.io.text import bytes_text
from kseg.runs.model_card import CARD_FILE, MARK, as_markdown, carried_card, metadata, model_index, table
from kseg.runs.workdir import run_of

_TAGS = {"SavedModel": "tf-keras", "ONNX": "onnx", "TFLite": "tflite", "web page": "onnx"}
_NUMBERS = {
    None: "float32",
    "float16": "weights of 16 bits (float16), computed in float32",
    "int8": "convolutions in 8 bits (int8), all else in float32",
}
_USE = {
    "SavedModel": "TensorFlow alone opens the folder of `saved_model.pb`: `tf.saved_model.load(FOLDER)`, signature "
    "`serving_default`.",
    "ONNX": "ONNX Runtime alone opens the file: `onnxruntime.InferenceSession(FILE).run(['labels', 'confidence'], "
    "{'images': images})`.",
    "TFLite": "LiteRT alone opens the file: "
    "`Interpreter(FILE).get_signature_runner('serving_default')(images=images)`.",
    "web page": "Open `index.html` in a browser. It needs no server and no network.",
}
_USE_HEAD = "\n## Use\n"


def card_of_run(source):
    """Return the card inside a .keras file, or of the finished run that a model is the kept one of; None without one.

    Args:
        source: path that a model was loaded from, None: it was not.
    """
    if source is None:
        return None
    path = local_path(source)
    if path.is_file() and (own := carried_card(path)):
        return own
    run = run_of(path)
    card = run.workdir / CARD_FILE
    if not run.finished or not card.exists():
        return None
    if not path.is_dir() and not os.path.samefile(path, run.stored_model()):
        return None  # its scores are another model's
    text = card.read_text(encoding="utf-8", errors="replace")
    return text if MARK in text else None


def export_card(run_card, name, facts, report, unfinished=False):
    """Return the card of an export as Markdown.

    Args:
        run_card: the card of its run (`card_of_run`), None: nothing is known of a run. name: of the model. facts: of
            classes.json. report: of report.json. unfinished: its run was not at its end.
    Returns:
        str: the metadata block, what the file is and how it was proved, then what the run's card says (data, scores,
        recipe, cost, limits), and how to use it.
    """
    kind = report["kind"]
    own = ["## Export", _facts(report)]
    use = _use(kind)
    if run_card is None:
        classes = facts["classes"]
        known = "No run says how it was trained and scored."
        if unfinished:
            known = "Its run had not finished and was not scored."
        parts = [
            metadata("kseg", [_TAGS[kind]]),
            MARK,
            f"# {as_markdown(name)}",
            f"Semantic segmentation into {len(classes)} classes: {as_markdown(', '.join(classes))}.",
            *own,
            "## Data",
            _data(facts),
            "## Limits",
            f"- {known}\n- It must not steer a vehicle.",
        ]
        return "\n\n".join([*parts, use]) + "\n"
    own.append("All that follows, but for the last section, is of the run that it was made of; the scores are Keras'.")
    text = _with_metadata(run_card, kind, report)
    head, scores, rest = text.partition("\n## Scores\n")
    return head + "\n" + "\n\n".join(own) + "\n" + scores + rest.partition(_USE_HEAD)[0] + "\n" + use + "\n"


def _with_metadata(card, kind, report):
    """Return the card of a run whose metadata block is the export's: its library, tags and own mean IoU.

    The run's scores are Keras'. A file that was not scored has none, and one that was has those of the records it was
    scored on.
    """
    block, end, text = card.partition("\n---\n")
    block = block.replace("library_name: keras", "library_name: kseg", 1)
    block = block.replace("\n- kseg\n", f"\n- kseg\n- {_TAGS[kind]}\n", 1)
    block, _, results = block.partition("\nmodel-index:\n")
    scores = report.get("scores")
    if scores and results:
        name = results.partition("\n")[0].removeprefix("- name: ")
        where = (scores["dataset"], scores["split"], scores["records"])
        lines = model_index(name, *where, {"mean_iou": scores["mean_iou"]})
        block = "\n".join([block, *lines])
    return block + end + text


def _facts(report):
    agreement = report["agreement"]
    limits = report["limits"]
    rows = [
        ["Format", report["kind"]],
        ["Numbers", _numbers(report)],
        ["Size", bytes_text(report["bytes"])],
        ["Compared with Keras on", report["images"]],
        ["Pixels with Keras' label", f"{agreement['pixels']:.2%} (at least {limits['pixels']:.1%} must)"],
        [f"Pixels whose confidence is within {limits['confidence']} of Keras'", f"{agreement['confidence']:.2%}"],
    ]
    if scores := report.get("scores"):
        where = f"{scores['images']} images of split `{scores['split']}`"
        value = f"{scores['mean_iou']:.4f} (Keras: {scores['keras_mean_iou']:.4f})"
        rows.append([f"Mean IoU of this file on {where}, protocol standard", value])
    if latency := report.get("latency"):
        size = f"{latency['width']}x{latency['height']}"
        rows.append([f"Time for an image of {size} where it was made", f"{latency['median_ms']:.1f} ms (median)"])
    for title, key in (("Converted with", "converted_with"), ("Proved with", "versions")):
        versions = ", ".join(f"{package} {version}" for package, version in report[key].items())
        rows.append([title, versions])
    return table(["", ""], rows)


def _numbers(report):
    if report["computed_in"] != "float32":
        return f"float32, computed in {report['computed_in']} where the run did so (mixed precision)"
    if report["kind"] == TFLITE and report["quantize"] == "int8":
        return "8 bits (int8), but for resizing and softmax"
    return _NUMBERS[report["quantize"]]


def _data(facts):
    text = f"Label set {as_markdown(facts.get('name'))}."
    return f"{text} sha256 of the manifest of its records: `{facts['records']}`." if facts.get("records") else text


def _use(kind):
    return (
        "## Use\n\nWith kseg:\n\n    import kseg\n    labels = kseg.predict(PATH, 'photo.jpg')\n\n"
        f"Without kseg: {_USE[kind]} Images are uint8 (B, H, W, 3), RGB, of any size. `labels` are uint8 (B, H, W) in "
        "the order of the classes above, `confidence` is float32 (B, H, W)."
    )
