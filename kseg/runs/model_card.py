"""The model card of a run: README.md in its folder, with the metadata block that the Hugging Face Hub reads."""

import json
import math
import pathlib
import re
import zipfile

import kseg
from kseg.data.groups import FEW, shown_groups
from kseg.io.files import write_atomic
from kseg.io.text import count_text, first_names
from kseg.score_table import GROUP_SCORES, SCORE_NAMES, SCORES
from kseg.settings import Settings

CARD_FILE = "README.md"
MARK = "<!-- kseg wrote this model card. It replaces the card unless you delete this line. -->"
_CALIBRATION_HEAD = "\n## Calibration\n"
_LIMITS_HEAD = "\n## Limits\n"
_RECIPE_LEFT_OUT = ("label_set", "label_space", "onednn", "checkpoint_every_steps", "validate_every_epochs", "keep")
# Where a score stands on the Hub: (name of the metric there, title, how to read it).
_HUB_METRICS = (("mean_iou", "mean IoU"), ("pixel_accuracy", "pixel accuracy"), ("f1", "macro F1"))


def write_card(path, text):
    """Write a card, unless a README.md of the user's stands there; return whether it was written.

    A card of kseg's holds the line `MARK`. A file without it is the user's and stays.
    """
    if is_users(path):
        return False
    write_atomic(str(path), text.encode())
    return True


def is_users(path):
    """Whether there is a card that kseg did not write, or that the user made his own: without the line `MARK`."""
    path = pathlib.Path(path)
    return path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")


def put_in(path, card):
    """Put a card into a .keras file, which holds a model that is no run's, and which Keras opens as before."""
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(CARD_FILE, card)


def carried_card(path):
    """Return the card that `put_in` left in a file; None if there is none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as file:
        return file.read(CARD_FILE).decode() if CARD_FILE in file.namelist() else None


def calibrated_card(card, temperature, split, records):
    """Return the card of a run with a section on the temperature of the model that was made of it.

    Args:
        card: of `run_card`. temperature: the number. split: that it was fitted on, of the records with that digest.
    """
    before, limits, after = card.partition(_LIMITS_HEAD)
    text = (
        f"{_CALIBRATION_HEAD}\nThe logits are divided by the temperature {temperature:.3f}. It was fitted on the split "
        f"`{split}` of the records `{records}`. Labels and scores are those of the run; confidences are not."
    )
    return f"{before.partition(_CALIBRATION_HEAD)[0].rstrip()}\n{text}\n{limits}{after}"


def run_card(stored, train_split, scored_split, scores, costs, *, normalization=None):
    """Return the card of a finished run as Markdown.

    Args:
        stored: {flag: text} of the run (`RunFolder.stored`).
        train_split, scored_split: of `open_split`: what it was trained and scored on.
        scores: `kseg.metrics.Scores`.
        costs: {"parameters", "multiply_adds", "height", "width"}; multiply_adds of one image of that size, None if
            nobody counted them.
        normalization: (mean, scale) of the images, None if the model has no such layer.
    Returns:
        str: the metadata block, then data, scores, recipe, cost, limits, and how to use the model.
    """
    label_set = train_split.label_set
    dataset = dataset_name(train_split.manifest)
    name = f"{stored['model']} on {dataset}"
    scored = (scores.split or scored_split.split.name, scored_split.manifest.digest)
    values = {key: getattr(scores, key) for key, _ in _HUB_METRICS}
    parts = [
        metadata("keras", results=model_index(json.dumps(name), dataset, *scored, values)),
        MARK,
        f"# {as_markdown(name)}",
        f"Semantic segmentation into {label_set.num_classes} classes: {as_markdown(', '.join(label_set.classes))}. "
        f"Trained with kseg {kseg.__version__} and Keras 3.",
        "## Scores",
        _scores(stored, scored_split, scores),
        "## Data",
        _data(dataset, label_set, train_split),
        "## Recipe",
        _recipe(stored, normalization),
        "## Cost",
        _cost(stored, costs),
        _LIMITS_HEAD.strip(),
        _limits(stored, scored_split, scores),
        "## Use",
        _use(),
    ]
    return "\n\n".join(parts) + "\n"


def dataset_name(manifest):
    """The dataset as users call it: drawn streets have the classes of Cityscapes and are not Cityscapes."""
    return "synthetic streets" if manifest.options.get("drawn") else manifest.info.name


def as_markdown(text):
    """Return a text, such as a class name, so that Markdown shows it as it is."""
    return re.sub(r"([\\`*\[\]<>|~&#$]|(?<!\w)_|_(?!\w))", r"\\\1", str(text))


def metadata(library, tags=(), results=()):
    """Return the YAML block of a card.

    Args:
        library: that opens the model. tags: more than those of every card. results: lines of the model-index.
    """
    lines = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: image-segmentation",
        "tags:",
        *(f"- {tag}" for tag in ("kseg", *tags, "semantic-segmentation")),
        *results,
        "---",
    ]
    return "\n".join(lines)


def model_index(name, dataset, split, records, values):
    """Return the lines of the model-index of a metadata block. Strings are written as JSON, which YAML takes.

    Args:
        name: of the model, as JSON. dataset, split: names. records: digest of their manifest. values: {key of
            _HUB_METRICS: score}; nan is left out.
    """
    lines = [
        "model-index:",
        f"- name: {name}",
        "  results:",
        "  - task:",
        "      type: image-segmentation",
        "      name: Semantic segmentation",
        "    dataset:",
        f"      type: {json.dumps(dataset)}",
        f"      name: {json.dumps(dataset)}",
        f"      split: {json.dumps(split)}",
        f"      revision: {records}",
        "    metrics:",
    ]
    for key, title in _HUB_METRICS:
        if not math.isnan(values.get(key, math.nan)):  # nothing to publish
            lines += [f"    - type: {key}", f"      name: {title}", f"      value: {values[key]:.4f}"]
    return lines


def table(head, rows):
    """Return a table as Markdown; its cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _number(value):
    return "-" if math.isnan(value) else f"{value:.4f}"


def _scores(stored, split, scores):
    head = ["", *SCORE_NAMES]
    rows = [
        ["macro", *(_number(getattr(scores, name)) for name in SCORE_NAMES)],
        ["micro", *(_number(scores.micro[name]) for name in SCORE_NAMES)],
    ]
    rows += [
        [as_markdown(title), *(_number(row[name]) for name in SCORE_NAMES)] for title, row in scores.per_class.items()
    ]
    weights = {
        "best": f"the epoch with the best {stored.get('best_by', 'mean_iou')} on `val`",
        "lowest_loss": "the epoch with the lowest training loss",
        "last": "the last step",
    }[stored.get("keep", "best")]
    sentences = [
        f"Mean IoU **{_number(scores.mean_iou)}**, pixel accuracy {_number(scores.pixel_accuracy)}, on "
        f"{scores.images} of {scores.expected_images} images of the split `{scores.split}`, each scored once at its "
        f"label's size, protocol {scores.protocol}. Jaccard is the IoU.",
        f"The weights are those of {weights}.",
        _independent(shown_groups(split.split.names, split.manifest.drive)),
    ]
    return "\n\n".join([" ".join(sentences), table(head, rows), *_groups(scores)])


def _groups(scores):
    """Yield a heading and a table of the scores of each group, if they were scored."""
    if not scores.groups:
        return
    yield f"By {scores.group_by}, each over the classes in its own labels or predictions:"
    rows = [
        [as_markdown(title), row["images"], *(_number(row[name]) for name in GROUP_SCORES)]
        for title, row in scores.groups.items()
    ]
    yield table([scores.group_by, "images", *(SCORES[name].title for name in GROUP_SCORES)], rows)


def _independent(groups):
    """Say how many independent groups the scored images are of."""
    if not groups.drives:
        return "The names of the images do not show which of them are of one drive."
    drives = f"{count_text(len(groups.drives), 'drive')} ({as_markdown(first_names(groups.drives, 5))})"
    if len(groups.drives) == 1:
        return f"The images are of {drives}: the scores say little about other places."
    few = ", so few that the scores say little about others" if len(groups.drives) < FEW else ""
    return f"The images are of {drives}{few}."


def _data(dataset, label_set, split):
    manifest = split.manifest
    counts = ", ".join(f"{len(part)} {name}" for name, part in manifest.splits.items())
    return (
        f"Data set {as_markdown(dataset)}: {counts} images. Label set {as_markdown(label_set.name)}. "
        f"sha256 of its manifest: `{manifest.digest}`."
    )


def _recipe(stored, normalization):
    """The settings that are not the defaults, without paths: a card is made to be shown."""
    lines = [f"--model={stored['model']}"]
    if stored.get("model_options", "{}") != "{}":
        options = json.loads(stored["model_options"])
        lines.append("--model_options=" + json.dumps({key: _without_folder(value) for key, value in options.items()}))
    for name, field in Settings.__dataclass_fields__.items():
        value = stored.get(name)
        if value is None or name in _RECIPE_LEFT_OUT or value == str(field.default):
            continue
        lines.append(f"--{name}={_without_folder(value)}")
    text = "Settings that are not kseg's defaults (`flags.txt` has all):\n\n" + _code(lines)
    if normalization:
        mean, scale = ([round(float(number), 6) for number in part] for part in normalization)
        text += f"\n\nThe model normalises its images itself: (pixel - {mean}) / {scale}, of RGB values of 0 to 255."
    return text


def _without_folder(value):
    """A path's last part; any other value as it is."""
    return pathlib.PurePath(value).name if isinstance(value, str) and ("/" in value or "\\" in value) else value


def _code(lines):
    return "\n".join(f"    {line}" for line in lines)


def _cost(stored, costs):
    text = f"{costs['parameters']:,} parameters."
    if costs.get("multiply_adds"):
        text += f" {costs['multiply_adds']:,} multiply-adds for an image of {costs['width']}x{costs['height']} pixels."
    return text


def _limits(stored, split, scores):
    lines = ["This is one training run. Another seed gives other scores; `kseg study` says how far apart they are."]
    if stored.get("keep", "best") == "best":
        lines.append("The epoch was chosen by the images that are scored, so the scores are a little too good.")
    unseen = [name for name in scores.classes if name not in scores.scored_classes]
    if unseen:
        lines.append(f"Not scored, because no image has them: {as_markdown(', '.join(unseen))}.")
    poor = [name for name, row in scores.per_class.items() if row["jaccard"] < 0.2]
    if poor:
        lines.append(f"IoU below 0.2: {as_markdown(', '.join(poor))}. Do not rely on these classes.")
    if split.manifest.options.get("drawn"):
        lines.append("The streets are drawn by a program: the model knows nothing of real ones.")
    lines.append("It was not tested in other places, weather or cameras. It must not steer a vehicle.")
    return "\n".join(f"- {line}" for line in lines)


def _use():
    return (
        "With kseg:\n\n"
        + _code(["import kseg", "labels = kseg.predict(PATH_OF_THIS_FOLDER, 'photo.jpg')"])
        + "\n\nA folder `saved_model` beside this file needs TensorFlow alone; `classes.json` in it has the classes."
    )
