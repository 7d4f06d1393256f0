"""Reads damaged files, one case after another, and prints a line of JSON for each.

    python tests/programs/fuzz.py FOLDER FIRST COUNT

A case ends in "read" (what was read is right), "refused" (one clear error) or "defect". The process may take 2 GB; the
one that started it watches the clock. TensorFlow stays out: its decoders come behind the checks that are tested here.
"""

import io
import json
import os
import pathlib
import resource
import shutil
import sys
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
os.environ["KERAS_BACKEND"] = "numpy"
sys.modules["tensorflow"] = None  # importing it would be an ImportError

import keras
import numpy as np
from absl import flags
from mutations import generator, mend_png, mutate, mutate_json, mutate_lines, mutate_member
from PIL import Image
from torch_files import write_state_dict

from kseg.commands import command_line, flagfiles, train_command
from kseg.data.pipeline.examples import Examples
from kseg.data.records import manifest as records
from kseg.data.records.prepare import prepare_dataset
from kseg.inference.loading import load_model
from kseg.io import images
from kseg.io.errors import InputError
from kseg.io.tfrecord import frame, serialize_example
from kseg.layers import Preprocess
from kseg.models.pretrained.torch_file import read_state_dict
from kseg.runs.checkpoints import TrainState, restore_checkpoint, save_checkpoint
from kseg.settings import make_settings
from kseg.training.trainers.base import Trainer

MEMORY = 2 * 2**30
SIZE = (12, 16)
FORMATS = [("BMP", {}), ("WEBP", {}), ("WEBP", {"lossless": True})]
FORMATS += [("TIFF", {"compression": name}) for name in ("raw", "tiff_lzw", "jpeg")]


class Wrong(Exception):
    """What was read is not what the file held."""


def must(condition, what):
    if not condition:
        raise Wrong(what)


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


class Fuzz:
    """The whole files, and for each kind a function that damages and reads one."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(1)
        self.images = [random.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(3)]
        self.labels = [random.integers(0, 3, SIZE).astype(np.uint8) for _ in range(3)]
        self._write_records()
        self._write_model()
        self.damaging = True
        self.kinds = [getattr(self, name) for name in dir(self) if name.startswith("read_")]

    def _write_records(self):
        source = self.folder / "source"
        for split in ("train", "val"):
            for i, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
                for kind, array in (("images", image), ("labels", label)):
                    path = source / split / kind / f"{i}{split}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(array).save(path)
        classes = [{"id": i, "name": f"class {i}", "color": [i, i, i]} for i in range(3)]
        (source / "classes.json").write_text(json.dumps({"classes": classes}))
        self.records = self.folder / "records"
        prepare_dataset("folder", source, self.records, shards=1, workers=1, progress=False)
        self.table = records.load_manifest(self.records).info.label_set().table
        self.foreign = self.folder / "foreign"
        self.foreign.mkdir()
        self.payloads = []
        for i, (image, label) in enumerate(zip(self.images, self.labels, strict=True)):
            values = {"image/encoded": images.encode(image), "image/filename": f"scene {i}", "image/format": "png"}
            values |= {"image/height": SIZE[0], "image/width": SIZE[1]}
            self.payloads.append(serialize_example(values | {"image/segmentation/class/encoded": images.encode(label)}))

    def _write_model(self):
        keras.utils.set_random_seed(0)
        image = keras.Input((8, 8, 3), name="image")
        x = Preprocess((124, 116, 104), (60, 60, 60), size=(8, 8), name="preprocess")(image)
        self.model = keras.Model(image, keras.layers.Conv2D(3, 1, name="logits")(x), name="fuzzed")
        self.model.save(self.folder / "model.keras")
        self.weights = self.model.get_weights()
        self.config = load_model(self.folder / "model.keras").get_config()
        self.state = TrainState(7, best=0.5, history=[{"epoch": 1, "loss": 1.25}])
        self.checkpoint = save_checkpoint(self.folder, self.state, {"model": self.model.variables})
        write_state_dict(self.folder / "weights.pth", {"a": self.weights[0], "b": self.weights[1]})
        self.flags = self.folder / "run.flags"
        self.flags.write_text("# a run\n--epochs=3\n--height=64\n--width=96\n--optimizer=sgd\n--learning_rate=0.01\n")

    def _damage(self, data, random, by=mutate):
        """Return the bytes damaged: anywhere, or in half the cases by a function that knows the format."""
        if not self.damaging:
            return data
        return (by if random.random() < 0.5 else mutate)(data, random)

    def _damaged(self, path, random, by=mutate):
        damaged = self.folder / f"case{path.suffix}"
        damaged.write_bytes(self._damage(path.read_bytes(), random, by))
        return damaged

    def read_png(self, random):
        i = random.integers(3)
        label = random.random() < 0.5
        array, read = (self.labels[i], images.decode_label) if label else (self.images[i], images.decode_image)
        data = self._damage(images.encode(array), random)
        if mended := random.random() < 0.5:
            data = mend_png(data)
        read, _ = read(data, "case.png")
        if mended:  # the damage is part of the file
            must(read.shape[:2] == images.header(data, "case.png")[0], f"shape {read.shape}")
            must(read.shape[0] * read.shape[1] <= images.MAX_PIXELS and read.dtype == np.uint8, f"shape {read.shape}")
        else:
            must(np.array_equal(read, array), "other pixels")

    def read_jpeg(self, random):
        """JPEG has no checksums: damage to the coefficients is other pixels."""
        data = self._damage(images.encode(self.images[random.integers(3)], "jpeg"), random)
        image, kind = images.decode_image(data, "case.jpg")
        must(image.shape == (*images.header(data, "case.jpg")[0], 3) and image.dtype == np.uint8, "shape")
        must(image.size <= 3 * images.MAX_PIXELS and kind == "jpeg", f"{kind} of shape {image.shape}")

    def read_photograph(self, random):
        """WebP, TIFF and BMP have no checksums either."""
        kind, options = FORMATS[random.integers(len(FORMATS))]
        file = io.BytesIO()
        Image.fromarray(self.images[random.integers(3)]).save(file, kind, **options)
        data = self._damage(file.getvalue(), random)
        image, kept = images.decode_image(data, "case")
        must(image.shape == (*images.header(data, "case")[0], 3) and image.dtype == np.uint8, "shape")
        must(image.size <= 3 * images.MAX_PIXELS and kept == "png", f"{kept} of shape {image.shape}")

    def read_tiff_label(self, random):
        file = io.BytesIO()
        label = self.labels[random.integers(3)]
        label = Image.fromarray(label.astype(np.uint16) if random.random() < 0.5 else label)
        label.save(file, "TIFF", compression=("raw", "tiff_lzw", "tiff_adobe_deflate")[random.integers(3)])
        ids, plain = images.decode_label(self._damage(file.getvalue(), random), "case")
        must(ids.ndim == 2 and ids.size <= images.MAX_PIXELS and ids.dtype == np.uint8 and not plain, f"{ids.shape}")

    def _check_examples(self, folder, split, label_space=None):
        """Every example that can be read is one that was written; the first error comes last."""
        examples = Examples(folder, split, label_space=label_space)
        errors = []
        must(len(examples) <= 3, "more examples than were written")
        for i in range(len(examples)):
            try:
                image, label = examples.raw(i)
            except ValueError as error:
                errors.append(error)
                continue
            known = [k for k in range(3) if np.array_equal(image, self.images[k])]
            must(known and np.array_equal(label, self.labels[known[0]]), "another image or label")
        examples.check_batches(2)
        examples.common_size()
        if errors:
            raise errors[0]
        return examples

    def read_tfrecord(self, random):
        """A shard of a folder with dataset.json."""
        shard = next(path for path in self.records.iterdir() if path.name.startswith("train"))
        whole = shard.read_bytes()
        try:
            shard.write_bytes(self._damage(whole, random))
            examples = self._check_examples(self.records, "train")
            must(len(examples) == 3, "an example is missing")
        finally:
            shard.write_bytes(whole)

    def read_foreign(self, random):
        """Shards without dataset.json: whole records may be cut off, which nothing tells; or (mended) be other ones."""
        framed = [frame(payload) for payload in self.payloads]
        data = self._damage(b"".join(framed), random)
        if random.random() < 0.5:
            k = random.integers(3)
            framed[k] = frame(self._damage(self.payloads[k], random))
            data = b"".join(framed)
        (self.foreign / "train-00000-of-00001").write_bytes(data)
        self._check_examples(self.foreign, "train", "train_ids")

    def read_manifest(self, random):
        """The manifest says what ids mean; what it says of the files must be so."""
        manifest = self.records / "dataset.json"
        whole = manifest.read_bytes()
        try:
            manifest.write_bytes(self._damage(whole, random, mutate_json))
            read = records.load_manifest(self.records)
            for split in read.splits:
                examples = self._check_examples(self.records, split)
                must(len(examples) == 3, "an example is missing")
                must(all(isinstance(name, str) for name in examples.split.names), "names")
                must(examples.pixel_counts().min() >= 0, "pixel counts")
                must(same([examples[0][1]], [examples.label_set.table[examples.raw(0)[1]]]), "label table")
                must(all(isinstance(name, str) for name in examples.label_set.classes), "classes")
            json.dumps(read.info.to_json())
            read.verify()
        finally:
            manifest.write_bytes(whole)

    def read_flagfile(self, random):
        path = self._damaged(self.flags, random, mutate_lines)
        values = train_command.FLAGS
        try:
            arguments = flagfiles.expand_flagfiles([f"--flagfile={path}"])
            must(not values(["train.py", *arguments])[1:], "an argument that is no flag")
            settings = make_settings(**{name: values[name].value for name in vars(make_settings(epochs=1))})
        finally:
            for name in values:
                values[name].unparse()
        lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n")]
        pairs = [line[2:].partition("=")[::2] for line in lines if line.startswith("--") and "=" in line]
        last = {name.removesuffix(":"): json.loads(text) if name.endswith(":") else text for name, text in pairs}
        for name, text in last.items():
            value = getattr(settings, name, text)
            must(str(value) == text or value == float(text), f"--{name}={text} gave {value!r}")

    def read_checkpoint(self, random):
        """All or nothing; other values only where the checksums were made to fit them."""
        self.model.set_weights([weight + 1 for weight in self.weights])
        mended = self.damaging and random.random() < 0.3
        path = self._damaged(self.checkpoint, random)
        if mended:
            path.write_bytes(mutate_member(self.checkpoint.read_bytes(), random))
        try:
            state = restore_checkpoint(path, {"model": self.model.variables})
        except ValueError:
            must(same(self.model.get_weights(), [weight + 1 for weight in self.weights]), "half restored")
            raise
        must(mended or (same(self.model.get_weights(), self.weights) and state == self.state), "values")

    def read_keras(self, random):
        model = load_model(self._damaged(self.folder / "model.keras", random))
        must(same(model.get_weights(), self.weights), "other weights")
        must(model.get_config() == self.config, "another model")

    def read_torch(self, random):
        arrays = read_state_dict(self._damaged(self.folder / "weights.pth", random))
        must(set(arrays) <= {"a", "b"}, f"arrays {sorted(arrays)}")
        for name, array in arrays.items():
            must(np.array_equal(array, self.weights[0 if name == "a" else 1]), f"another array {name}")

    def run_whole(self):
        """Yield what undamaged files of every kind come to."""
        self.damaging = False
        yield from (self.run(case) for case in range(len(self.kinds)))
        self.damaging = True

    def run(self, case):
        """Return what a case came to."""
        read = self.kinds[case % len(self.kinds)]
        found = {"case": case, "kind": read.__name__.removeprefix("read_"), "outcome": "read"}
        try:
            read(generator(case))
        except (ValueError, OSError, flags.Error) as error:
            clear = 10 < len(command_line.shown(error)) <= 2000
            ours = isinstance(error, flags.Error | InputError)
            found["outcome"] = "refused" if clear and ours else "defect"
            found["error"] = (
                "".join(traceback.format_exception(error)) if not (clear and ours) else command_line.shown(error)
            )
        except BaseException as error:
            found |= {"outcome": "defect", "error": "".join(traceback.format_exception(error))[-4000:]}
        return found | {"peak": Trainer().peak_memory()[0]}


def main(folder, first, count):
    folder = pathlib.Path(folder)
    fuzz = Fuzz(folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for found in fuzz.run_whole():
        print(json.dumps(found | {"case": "whole"}), flush=True)
    for case in range(int(first), int(first) + int(count)):
        print(json.dumps(fuzz.run(case)), flush=True)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
