"""The proof of an export: the written file, run by its own runtime in a process of its own, against Keras."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from typing import NamedTuple

import keras
import numpy as np

import kseg
from kseg.export.proof_images import reference
from kseg.inference.ensemble import AveragingModel
from kseg.inference.label_model import class_names
from kseg.inference.outside import alone
from kseg.inference.outside.file_kinds import WEB
from kseg.io.errors import InputError
from kseg.io.progress import progress_bar
from kseg.io.text import size_text
from kseg.metrics.scores import ScoreCounts
from kseg.runs.model_card import dataset_name

_TIMED = 10
_SECONDS_TO_END = 20


class Agreement(NamedTuple):
    """What an export must keep.

    pixels: least share of pixels of Keras' own label, in the images of each size and batch. confidence: in that share
    of pixels the confidence differs by at most this. mean_iou: it may differ by this on the validation split.
    """

    pixels: float
    confidence: float
    mean_iou: float


LIMITS = {
    None: Agreement(0.999, 0.01, 0.002),
    "float16": Agreement(0.995, 0.05, 0.005),
    "int8": Agreement(0.97, 0.2, 0.01),
}


class ExportError(InputError):
    """An exported file does not do what the model does."""


@dataclasses.dataclass(frozen=True)
class Runtime:
    """A written model in its runtime.

    run: (images, one of `alone.OUTPUTS`) -> (*arrays, seconds, bytes); versions: of packages.
    """

    run: object
    versions: dict


@contextlib.contextmanager
def in_a_process(path, kind):
    """Give the Runtime of a written model in a fresh process, which never imports kseg.

    Raises:
        ExportError: the runtime cannot open the file or stops, with its last words.
    """
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, alone.__file__, kind, str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)

        def read():
            try:
                return alone.receive(process.stdout)
            except ValueError:  # the stream has ended
                raise ExportError(_last_words(process, errors, kind)) from None

        def run(images, output="labels"):
            try:
                alone.send(process.stdin, np.frombuffer(output.encode(), np.uint8), images)
            except OSError:
                raise ExportError(_last_words(process, errors, kind)) from None
            arrays = [read() for _ in range(1 if output == "probabilities" else 2)]
            seconds, peak = read()
            return *arrays, float(seconds), None if np.isnan(peak) else int(peak)

        try:
            versions = json.loads(read().tobytes())
            yield Runtime(run, versions)
            process.stdin.close()
            if process.wait():
                raise ExportError(_last_words(process, errors, kind))
        finally:
            _end(process)
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    stream.close()


def _end(process):
    """End a process and, first, give it time to end what it has started itself: a browser."""
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
    finally:
        process.kill()
        process.wait()


def _last_words(process, errors, kind):
    process.stdin.close()
    code = process.wait()
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"The runtime of the {kind} file {how}: {lines[-1][:400]}"


@contextlib.contextmanager
def in_this_process(path, kind):
    """Give the Runtime of a written model in this process, which is quicker."""
    run, versions = alone.OPENERS[kind](str(path))
    yield Runtime(lambda *asked: (*run(*asked), 0.0, 0), versions)


def prove(model, runtime, images, *, kind, quantize=None, progress=False, scored=True):
    """Compare a written model with the Keras model that it was made of.

    Args:
        model: keras.Model. runtime: Runtime of the written model. images: `proof_images.ProofImages`. kind: of the
            file, in words. quantize: key of LIMITS. progress: show a bar. scored: score both on the split, and time the
            file.
    Returns:
        dict: what the report says.
    Raises:
        ExportError: it differs by more than LIMITS allow; says which class, image and size, and by how much.
    """
    limits = LIMITS[quantize]
    keras_answer = reference(model)
    classes = class_names(model)
    batches = images.batches()
    if kind == WEB:  # a page labels one picture at a time
        batches = [(names[i : i + 1], found[i : i + 1]) for names, found in batches for i in range(len(names))]
    try:
        compared = _compare(keras_answer, runtime, batches, kind, limits, classes)
        _compare_others(model, runtime, batches, kind, limits, classes)
    except ExportError as error:
        raise ExportError(f"{error} It was compared on {images.where}.") from None
    if fault := runtime.versions.get("fault"):
        raise ExportError(f"The {kind} does not open by itself. It says: {fault} Nothing was written.")
    report = {
        "kseg_version": kseg.__version__,
        "kind": kind,
        "quantize": quantize,
        "images": images.where,
        "notes": list(images.notes),
        "limits": {**limits._asdict()},
        "agreement": compared,
    }
    if scored:
        one_image = batches[0][1]
        report["latency"] = _latency(runtime, one_image)
        report["scores"] = _scores(keras_answer, runtime, images.split, kind, limits, progress)
        report["latency"]["peak_memory_bytes"] = runtime.run(one_image)[3]
    report["versions"] = {**runtime.versions, "keras": keras.__version__, "kseg": kseg.__version__}
    return report


def _compare(keras_answer, runtime, batches, kind, limits, classes):
    """Return the agreement for each size and batch."""
    groups = {}
    labels_seen = set()
    for names, images in batches:
        expected, expected_confidence = keras_answer(images)
        labels, confidence = runtime.run(images)[:2]
        shape = tuple(images.shape[:3])
        if labels.shape != shape or confidence.shape != shape:
            raise ExportError(
                f"Of {_shown(names[0], images)} the {kind} file must give labels and confidence of {shape}, batch, "
                f"height and width, but gives {labels.shape} and {confidence.shape}. Nothing was written."
            )
        labels_seen |= set(np.unique(expected).tolist())
        groups.setdefault((*images.shape[1:3], len(images)), []).extend(
            zip(names, expected, labels, _gap(confidence, expected_confidence), strict=True)
        )
    found = []
    for (height, width, batch), rows in groups.items():
        equal = np.concatenate([(expected == labels).ravel() for _, expected, labels, _ in rows])
        gaps = np.concatenate([gap.ravel() for *_, gap in rows])
        agreeing = float(equal.mean())
        near = float((gaps <= limits.confidence).mean())
        if agreeing < limits.pixels or not near >= limits.pixels:  # nan is not near
            raise ExportError(_difference(rows, kind, limits, classes, agreeing, near, (height, width, batch)))
        found.append(
            {
                "height": height,
                "width": width,
                "batch": batch,
                "images": len(rows),
                "pixels": agreeing,
                "confidence": near,
                "largest_confidence_gap": float(gaps.max()),
            }
        )
    return {
        "pixels": min(group["pixels"] for group in found),
        "confidence": min(group["confidence"] for group in found),
        "classes_seen": [name for i, name in enumerate(classes) if i in labels_seen],
        "groups": found,
    }


def _compare_others(model, runtime, batches, kind, limits, classes):
    """Raise ExportError unless what a file gives beside labels and confidence is right too, for an image of each size.

    Probabilities of all classes must be Keras', and files of images must have the labels of their pixels.
    """
    outputs = alone.OUTPUTS[kind]
    of_keras = AveragingModel([model])
    firsts = {images.shape[1:3]: (names[0], images[:1]) for names, images in reversed(batches)}
    for name, image in firsts.values():
        shown = _shown(name, image)
        if "encoded" in outputs:
            labels, found = (runtime.run(image, output)[0] for output in ("labels", "encoded"))
            if labels.shape != found.shape:
                raise ExportError(
                    f"Of the PNG file of {shown} the {kind} file must give labels of {labels.shape}, but gives "
                    f"{found.shape}. Nothing was written."
                )
            equal = (labels == found).mean()
            if equal < limits.pixels:
                raise ExportError(
                    f"The {kind} file gives other labels for a PNG file than for its pixels. Of {shown}, {equal:.2%} "
                    f"are the same, at least {limits.pixels:.1%} must; {_most_missed(labels, found, classes)}. Nothing "
                    "was written."
                )
        if "probabilities" in outputs:
            found, expected = runtime.run(image, "probabilities")[0], of_keras.probabilities(image, [name])
            if found.shape != expected.shape:
                raise ExportError(
                    f"Of {shown} the {kind} file must give probabilities of {expected.shape}, but gives "
                    f"{found.shape}. Nothing was written."
                )
            gaps = _gap(found, expected)
            near = float((gaps.max(axis=-1) <= limits.confidence).mean())
            if not near >= limits.pixels:
                worst = int(np.nanargmax(gaps.mean(axis=(0, 1, 2))))
                raise ExportError(
                    f"The {kind} file gives other probabilities than the model does in Keras. Of {shown}, {near:.2%} "
                    f"of the pixels have all within {limits.confidence} of Keras', at least {limits.pixels:.1%} must. "
                    f"Worst is class {_name_of(worst, classes)}. Nothing was written."
                )


def _gap(one, other):
    """Return the distance of confidences, 0 where both are nan."""
    return np.where(np.isnan(one) & np.isnan(other), 0, np.abs(one - other))


def _difference(rows, kind, limits, classes, agreeing, near, place):
    """Say in which image, of which size, and in which class a file differs most."""
    height, width, batch = place
    where = f"images of {width}x{height} in batches of {batch}"
    name, expected, labels, gap = min(rows, key=lambda row: (row[1] == row[2]).mean())
    if agreeing >= limits.pixels:
        name, expected, _, gap = max(rows, key=lambda row: np.nan_to_num(row[3], nan=1.0).mean())
        worst = int(np.bincount(expected.ravel().astype(int), np.nan_to_num(gap, nan=1.0).ravel()).argmax())
        of_class = gap[expected == worst].mean()
        return (
            f"The {kind} file does not do what the model does in Keras. In {where}, the confidence of {near:.2%} of "
            f"the pixels is within {limits.confidence} of Keras', at least {limits.pixels:.1%} must be. Worst is image "
            f"{name}: it differs by {gap.mean():.3g} on average; most of it is class {_name_of(worst, classes)}, by "
            f"{of_class:.3g}. Nothing was written."
        )
    return (
        f"The {kind} file does not do what the model does in Keras. In {where}, {agreeing:.2%} of the pixels have "
        f"the same label, at least {limits.pixels:.1%} must. Worst is image {name}: {(expected == labels).mean():.2%}; "
        f"{_most_missed(expected, labels, classes)}. Nothing was written."
    )


def _most_missed(expected, labels, classes):
    """Say in which class labels differ most from those expected, and what they are there."""
    missed = np.bincount(expected[expected != labels].ravel().astype(int), minlength=1)
    worst = int(missed.argmax())
    wrong = labels[(expected == worst) & (labels != worst)].astype(int)
    taken_for = int(np.bincount(wrong).argmax())
    own = (labels[expected == worst] == worst).mean()
    return (
        f"most of it is class {_name_of(worst, classes)}, of which {own:.2%} is the same and the most is "
        f"{_name_of(taken_for, classes)}"
    )


def _name_of(label, classes):
    return dict(enumerate(classes)).get(label, label)


def _shown(name, images):
    """Name an image of a batch, and its size."""
    return f"image {name} of {size_text(images[0])}"


def _latency(runtime, images):
    """Return median and spread of the time for one image in milliseconds; the first two calls do not count."""
    times = [1000 * runtime.run(images)[2] for _ in range(_TIMED + 2)][2:]
    low, middle, high = np.percentile(times, [25, 50, 75])
    return {
        "height": images.shape[1],
        "width": images.shape[2],
        "batch": 1,
        "calls": _TIMED,
        "median_ms": round(middle, 3),
        "quartiles_ms": [round(low, 3), round(high, 3)],
    }


def _scores(keras_answer, runtime, split, kind, limits, progress):
    """Score both on a split; None without one."""
    if split is None:
        return None
    counts = [ScoreCounts(split.label_set.classes) for _ in range(2)]
    worst = (-1.0, "", (0, 0))  # share of pixels whose labels differ, image, its size
    with split.readable_errors(), progress_bar("Scoring", len(split), shown=progress) as bar:
        for i in range(len(split)):
            image, truth = split[i]
            answers = keras_answer(image[None])[0][0], runtime.run(image[None])[0][0]
            for one, labels in zip(counts, answers, strict=True):
                one.add(truth, labels)
            differ = float((answers[0] != answers[1]).mean())
            worst = max(worst, (differ, split.split.names[i], image.shape[:2]))
            bar.update()
    own, found = (one.scores(len(split)) for one in counts)
    if not abs(own.mean_iou - found.mean_iou) <= limits.mean_iou:
        raise ExportError(_score_gap(own, found, worst, kind, limits))
    return {
        "dataset": dataset_name(split.manifest),
        "records": split.manifest.digest,
        "split": split.split.name,
        "images": len(split),
        "keras_mean_iou": own.mean_iou,
        "mean_iou": found.mean_iou,
    }


def _score_gap(own, found, worst, kind, limits):
    """Say by how much the scores of a file differ from Keras', in which class and image most. worst: of `_scores`."""
    gaps = {name: abs(row["jaccard"] - found.per_class[name]["jaccard"]) for name, row in own.per_class.items()}
    name = max(gaps, key=lambda name: np.nan_to_num(gaps[name], nan=-1.0))
    ious = [scores.per_class[name]["jaccard"] for scores in (found, own)]
    share, image, (height, width) = worst
    return (
        f"The {kind} file has a mean IoU of {found.mean_iou:.4f} on the validation split, Keras has "
        f"{own.mean_iou:.4f}. They must not differ by more than {limits.mean_iou}. Most of it is class {name} (IoU "
        f"{ious[0]:.4f}, Keras {ious[1]:.4f}); most labels differ in image {image} of {width}x{height} ({share:.2%}). "
        "Nothing was written."
    )
