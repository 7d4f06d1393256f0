"""A model of another format as kseg's own are: images of any size in, label maps of their size out."""

import logging

import numpy as np

from kseg.inference.label_model import LabelModel
from kseg.inference.outside.description import LAYOUTS, RANGES
from kseg.inference.outside.runtimes import open_file, runtime_errors
from kseg.inference.resizing import resized
from kseg.io.errors import InputError, NotFiniteError
from kseg.io.hash_list import sha256_of_content

_LOG = logging.getLogger("kseg")
_CLASS_AXIS = {"NHWC": 3, "NCHW": 1}


class OutsideModel(LabelModel):
    """An ONNX, TFLite or SavedModel file that kseg did not write, run one image at a time.

    The whole image is resized to the model's size (bilinear, antialiased; its shape is not kept). Scores, logits or
    probabilities, are resized bilinearly to the label's size as they come, and the largest wins, the first of equals. A
    model that gives ids has them resized by nearest.

    Args:
        description: `description.Description` of it.
    Raises:
        InputError: what must be known of it is neither in the file nor in the description; a file that its runtime
            cannot open.
    """

    def __init__(self, description):
        self._file = description.file
        self._described = description
        self._opened = open_file(description.file, description.kind)
        self._asked = []
        self.names = self._known("classes", description.names, "a dataset, or the list of names", '"cityscapes"')
        self._channels = self._said("channels", "RGB or BGR", '"RGB"')
        self._layout = self._input_layout()
        self._size = self._input_size()
        self._factor, self._shift = self._normalisation()
        self._output = self._chosen_output()
        if self._asked:
            raise description.missing(self._asked)
        self.num_classes = max(self.names) + 1
        self.label_set = self._label_set()
        self.reads = self._in_words()
        self.sha256 = sha256_of_content(description.file)
        _LOG.info("%s: %s", description.file, self.reads)

    def predict(self, images, height, width, names):
        return np.stack([self._labels(image, height, width, name) for image, name in zip(images, names, strict=True)])

    def _labels(self, image, height, width, name):
        with runtime_errors(f"{self._file} cannot label {name}"):
            found = np.asarray(self._opened.run(self._input(image), [self._output])[self._output])
        ids, scores = self._interpreted(found)
        if ids is not None:
            self._check_ids(ids, name)
            at_label = resized(ids.astype(np.int32)[None, ..., None], height, width, interpolation="nearest")
            return np.asarray(at_label)[0, ..., 0]
        scores = scores.astype(np.float32)
        if not np.isfinite(scores).all():
            raise NotFiniteError(f"The scores of {self._file} for {name} are not finite.")
        return np.asarray(resized(scores[None], height, width))[0].argmax(axis=-1)

    def _known(self, key, value, why, example):
        """Return a value; if it is None, note that its key is to be asked for."""
        if value is None:
            self._asked.append((key, why, example))
        return value

    def _said(self, key, why, example):
        return self._known(key, self._described.keys.get(key), why, example)

    def _label_set(self):
        """Return what the model carries as kseg's own do; an id without a name is a class of that number."""
        chosen = self._described.label_set
        if chosen is not None:
            return {"name": chosen.name, "classes": list(chosen.classes), "palette": chosen.palette}
        classes = [self.names.get(number, f"id {number}") for number in range(self.num_classes)]
        return {"name": "its own", "classes": classes, "palette": None}

    def _input(self, image):
        """Return what the model takes, (1, H, W, 3) or (1, 3, H, W), of an image uint8 (H, W, 3)."""
        given = self._opened.input
        height, width = self._size or image.shape[:2]
        values = np.asarray(resized(image[None].astype(np.float32), height, width, antialias=True))
        if self._channels == "BGR":
            values = values[..., ::-1]
        values = values * self._factor + self._shift
        if self._layout == "NCHW":
            values = values.transpose(0, 3, 1, 2)
        if given.dtype.kind in "iu":
            if given.dtype != np.uint8:
                values = values / given.scale + given.zero
            limits = np.iinfo(given.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return np.ascontiguousarray(values.astype(given.dtype))

    def _input_layout(self):
        """Return NHWC or NCHW, by the place of the three colours; the description decides where both could be."""
        given = self._opened.input
        shape = given.shape
        fits = [layout for layout in LAYOUTS if len(shape) == 4 and shape[_CLASS_AXIS[layout]] in (3, None)]
        sure = [layout for layout in fits if shape[_CLASS_AXIS[layout]] == 3]
        said = self._described.keys.get("layout")
        if len(shape) == 4 and shape[0] not in (1, None):
            raise InputError(f"{self._file} must take one image at a time, but its input {given.name} is {shape}.")
        if not fits or said not in (None, *fits):
            raise InputError(
                f"{self._file} must take images of three colours, (1, H, W, 3) or (1, 3, H, W)"
                f"{f' ({said} by its description)' if said else ''}, but its input {given.name} is {shape}."
            )
        if said:
            return said
        if len(sure) == 1:
            return sure[0]
        return self._known("layout", None, f"of its input {shape}: NHWC or NCHW", '"NHWC"')

    def _input_size(self):
        """Return the (height, width) of its images; None: they keep their own."""
        if self._layout is None:
            return None
        shape = self._opened.input.shape
        sides = shape[1:3] if self._layout == "NHWC" else shape[2:]
        said = self._described.keys.get("size")
        if said and any(side not in (None, wanted) for side, wanted in zip(sides, said, strict=True)):
            raise InputError(f"{self._file} takes images of {sides} (height, width), but its description says {said}.")
        if said:
            return tuple(said)
        if all(side is not None for side in sides):
            return sides
        if any(side is not None for side in sides):
            self._known("size", None, f"height and width, of which {sides} is fixed", "[512, 1024]")
        return None

    def _normalisation(self):
        """Return factor and shift, (3,) in the order of the model's channels, that a pixel's 0..255 is brought by."""
        given = self._opened.input
        keys = self._described.keys
        if given.dtype == np.uint8:
            if said := [key for key in ("range", "mean", "std") if key in keys]:
                raise InputError(
                    f"{self._described.path} says {said[0]}, but {self._file} takes uint8: pixels as they are, 0..255. "
                    "Leave it out."
                )
            return np.float32(1), np.float32(0)
        if given.dtype.kind not in "f" and not given.scale:
            raise InputError(f"{self._file} must take float, uint8 or quantised images, got {given.dtype}.")
        chosen = self._said("range", f"{', '.join(RANGES)}; add mean and std if it takes them", '"0..1"')
        factor, shift = RANGES.get(chosen, (1.0, 0.0))
        mean = np.array(keys.get("mean", [0, 0, 0]), np.float32)
        std = np.array(keys.get("std", [1, 1, 1]), np.float32)
        return np.float32(factor) / std, (np.float32(shift) - mean) / std

    def _chosen_output(self):
        names = [one.name for one in self._opened.outputs]
        said = self._described.keys.get("output")
        shown = ", ".join(f'"{one.name}" {one.dtype} {one.shape}' for one in self._opened.outputs)
        if said is not None and said not in names:
            raise InputError(f"{self._described.path}: {self._file} has no output {said!r}. It has {shown}.")
        if said is None and len(names) != 1:
            self._known("output", None, f"one of {shown}", f'"{names[0]}"')
        return said or names[0]

    def _interpreted(self, found):
        """Return (ids (H, W), None) or (None, scores (H, W, C)) of what the model gave."""
        shape = found.shape
        integers = found.dtype.kind in "iu"
        if len(shape) == 3 and shape[0] == 1 and integers:
            return found[0], None
        if len(shape) == 4 and shape[0] == 1:
            if integers and 1 in (shape[1], shape[3]):
                return found[0, 0] if shape[1] == 1 else found[0, ..., 0], None
            said = self._described.keys.get("output_layout")
            fits = [name for name in LAYOUTS if shape[_CLASS_AXIS[name]] == self.num_classes and said in (None, name)]
            if len(fits) == 2:
                asked = ("output_layout", f"where its output {shape} has the classes", '"NHWC"')
                raise self._described.missing([asked])
            if fits:
                return None, found[0] if fits == ["NHWC"] else found[0].transpose(1, 2, 0)
        raise InputError(
            f"{self._file} must give ids (1, H, W), whole numbers, or scores (1, H, W, {self.num_classes}) or (1, "
            f"{self.num_classes}, H, W) of the {self.num_classes} classes that its description lists, but output "
            f'"{self._output}" is {found.dtype} {shape}.'
        )

    def _check_ids(self, ids, name):
        unknown = sorted(set(np.unique(ids).tolist()) - set(self.names))
        if unknown:
            raise InputError(
                f"{self._file} gives the id {unknown[0]} for {name}, which is none of the classes of its description. "
                "List it there too; with a map it may be of no class of the data."
            )

    def _in_words(self):
        """Return in words what is known and assumed of the model: every result is worth that much."""
        given = self._opened.input
        size = "images as they are"
        if self._size:
            size = f"images resized to {self._size[1]}x{self._size[0]}"
        keys = self._described.keys
        values = "0..255"
        if given.dtype != np.uint8:
            values = ", ".join([keys["range"], *(f"{key} {keys[key]}" for key in ("mean", "std") if key in keys)])
        return f"{self._described.kind}, {size}, {self._layout}, {self._channels}, {given.dtype} {values}"
