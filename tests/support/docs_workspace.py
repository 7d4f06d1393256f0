"""A folder where the blocks of README.md and docs/ can run: tiny photographs, records and two finished runs."""

import json
import re

import numpy as np
from PIL import Image

CLASSES = ("road", "car", "building", "sky")
SIZE = (64, 96)
MODEL = ("--model=unet", "--base_filters=4", "--epochs=1", "--height=32", "--width=64", "--batch_size=2")
# The blocks' own numbers, as small as a test can bear; flags at the end of a command win.
SMALL_FLAGS = ("--height=32", "--width=64", "--base_filters=4", "--batch_size=2", "--workers=1")
SMALL_CODE = (
    (r"height=\d+", "height=32"),
    (r"width=\d+", "width=64"),
    (r"\b(160|256), (224|512)\b", "32, 64"),
    (r"epochs=\d+", "epochs=1"),
    (r'"base_filters": \d+', '"base_filters": 4'),
    (r"base_filters=\d+", "base_filters=4"),
)


def write_photographs(folder):
    """Write mydata/ (images, labels, classes.json), photos/ and photo.jpg: bands of brightness, one for each class."""
    random = np.random.default_rng(0)
    classes = [{"id": i, "name": name, "color": [60 * i, 90, 30]} for i, name in enumerate(CLASSES)]
    for split, count in (("train", 6), ("val", 4)):
        for kind in ("images", "labels"):
            (folder / "mydata" / split / kind).mkdir(parents=True)
        for i in range(count):
            rows = np.sort(random.integers(0, len(CLASSES), 8))
            label = np.repeat(rows, SIZE[0] // 8)[:, None] * np.ones(SIZE[1], int)
            image = label[..., None] * 60 + random.integers(0, 40, (*SIZE, 3))
            Image.fromarray(image.astype(np.uint8)).save(folder / "mydata" / split / "images" / f"{split}_{i}.png")
            Image.fromarray(label.astype(np.uint8)).save(folder / "mydata" / split / "labels" / f"{split}_{i}.png")
    (folder / "mydata" / "classes.json").write_text(json.dumps({"classes": classes, "void": [255]}))
    (folder / "photos").mkdir()
    photograph = Image.fromarray(random.integers(0, 256, (80, 128, 3), np.uint8))
    photograph.save(folder / "photo.jpg")
    photograph.save(folder / "photos" / "other.jpg")


def small(words):
    """Return a command's words with small numbers; `train` takes all of them, the others what is theirs."""
    command = words[0]
    if command == "train":
        epochs = [word for word in words if word.startswith("--epochs=")]
        taken = [flag for flag in SMALL_FLAGS if not flag.startswith("--workers")]
        if any(word.startswith("--flagfile=runs/") for word in words):  # the run that is continued or extended
            return [re.sub(r"--epochs=\d+", "--epochs=2", word) for word in words]
        return [*words, *taken, *(["--epochs=1"] if epochs else [])]
    if command == "prepare":
        return [*words, "--workers=1"]
    return words


def small_code(text):
    """Return Python with small numbers."""
    for pattern, number in SMALL_CODE:
        text = re.sub(pattern, number, text)
    return text
