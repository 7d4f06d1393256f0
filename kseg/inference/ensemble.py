"""Mean probabilities: of several models (an ensemble), and of several looks of each at an image (`looks.Looks`)."""

import math

import numpy as np
import scipy.special
from keras import ops

from kseg.inference import windows
from kseg.inference.finite import all_finite, check_logits
from kseg.inference.label_model import LabelModel, class_count, class_names, label_set_of, reads_of
from kseg.inference.logits import logits_at, scaled
from kseg.inference.looks import ONE_LOOK, ONE_MODEL, one_size_error
from kseg.inference.predictor import compiled_for
from kseg.inference.resizing import at_label_size, resized
from kseg.io.errors import InputError
from kseg.layers.preprocessing import preprocess_layer


def entropy(probabilities):
    """Return the entropy in nats of probabilities (..., C): (...)."""
    return scipy.special.entr(probabilities).sum(-1)


def disagreement(probabilities):
    """Return how far models disagree at each pixel, in nats: the mutual information of label and model.

    It is the entropy of the mean of their probabilities less the mean of their entropies: what is uncertain because the
    models differ (Gal 2016, Uncertainty in Deep Learning, section 3.3). It equals the mean Kullback-Leibler divergence
    of a model from the mean, whose sum over the models Lakshminarayanan et al. 2017 (arXiv 1612.01474, section 3.5)
    call disagreement. 0 where all agree, also if all are unsure; at most `largest_disagreement`.

    Args:
        probabilities: a list of one array (..., C) for each model.
    Returns:
        (...)
    """
    found = entropy(_mean(probabilities)) - _mean([entropy(one) for one in probabilities])
    return np.maximum(found, 0)  # rounding may leave a little less


def largest_disagreement(models, classes):
    """Return the largest `disagreement`: ln(min(models, classes)), of models that are sure and differ as they can."""
    return math.log(min(models, classes))


class AveragingModel(LabelModel):
    """The mean of the probabilities of models that look at each image so; it predicts and evaluates as a model does.

    Every model counts alike, and so does every look of it. All models are in memory, and so are their probabilities of
    a batch; each runs after the one before. With tile these are the probabilities of a band (`windows.slide`).

    Args:
        models: of `loading.as_model`, whose classes are the same. What is an AveragingModel itself, of one look, counts
            as its models. looks: Looks.
    Raises:
        InputError: no models, models of other classes or class maps, one that gives label maps and no probabilities,
            one of a fixed size with other scales than 1, a tile that is too small for a model.
    """

    gives_probabilities = True

    def __init__(self, models, looks=ONE_LOOK):
        self.models = _single(models)
        self.looks = looks
        multiples = [getattr(_layer_of(model), "multiple", 1) for model in self.models]
        for model, multiple in zip(self.models, multiples, strict=True):
            _check(model, looks, multiple)
        _check_same_classes(self.models)
        if looks.tile is not None:
            self._step = windows.step_of(looks.tile, math.lcm(*multiples))
            # What resizes its windows to one size would see a smaller last one larger than the others.
            self._full = any(map(_works_at_one_size, self.models))
        self._runs = [_looks_at(model, looks) for model in self.models]
        self.label_set = _common_label_set(self.models)
        self.num_classes = class_count(self.models[0])
        self.kseg_class_map = getattr(self.models[0], "kseg_class_map", None)
        self.reads = _in_words(self.models, looks)

    @property
    def weights(self):
        """Those of all models."""
        return [weight for model in self.models for weight in model.weights]

    def predict(self, images, height, width, names):
        return self._predict(images, height, width, names, False)[0]

    def predict_with_confidence(self, images, height, width, names):
        return self._predict(images, height, width, names, False)

    def predict_with_disagreement(self, images, height, width, names):
        if len(self.models) == 1:
            raise InputError(ONE_MODEL)
        return self._predict(images, height, width, names, True)

    def probabilities(self, images, names):
        return _mean(self._of_each(images, names))

    def labels_and_confidence(self, image, name):
        """Label an image, uint8 (H, W, 3): class ids uint8 (H, W), and their probabilities float32 (H, W)."""
        labels, confidence = self.predict_with_confidence(image[None], *image.shape[:2], [name])
        return labels[0], confidence[0]

    def _predict(self, images, height, width, names, disagreeing):
        """Return labels and confidence, with `disagreeing` disagreement too, each (B, height, width)."""
        if self.looks.tile is None or max(images.shape[1:3]) <= self.looks.tile:
            found = _measured(self._of_each(images, names), disagreeing)
        else:
            found = [np.empty(images.shape[:3], kind) for kind in (np.uint8, np.float32, np.float32)[: 2 + disagreeing]]
            for i, name in enumerate(names):
                self._slide(images[i], name, [part[i] for part in found])
        return tuple(at_label_size(part, height, width) for part in found)

    def _slide(self, image, name, parts):
        """Fill in the parts of `_measured`; windows' bands lie across the longer side, so they are short."""
        wide = image.shape[1] > image.shape[0]
        if wide:
            parts = [part.T for part in parts]

        def slide(run):
            def window(rows, columns):
                if wide:
                    return run(image[columns, rows][None], [name])[0].swapaxes(0, 1)
                return run(image[rows, columns][None], [name])[0]

            return windows.slide(*parts[0].shape, self.looks.tile, self._step, self.num_classes, window, self._full)

        for bands in zip(*map(slide, self._runs), strict=True):
            rows = bands[0][0]
            for part, values in zip(parts, _measured([band for _, band in bands], len(parts) > 2), strict=True):
                part[rows] = values

    def _of_each(self, images, names):
        """Return each model's probabilities for images or windows (B, H, W, 3): a list of float32 (B, H, W, C)."""
        return [run(images, names) for run in self._runs]


def _measured(probabilities, disagreeing):
    """Return labels and confidence of the mean of a list of (..., C), with `disagreeing` the disagreement too."""
    mean = _mean(probabilities)
    found = mean.argmax(-1).astype(np.uint8), mean.max(-1)
    return (*found, disagreement(probabilities)) if disagreeing else found


def _mean(arrays):
    """Return the mean of arrays; unlike NumPy's it copies none of them together, and a single one is its own mean."""
    if len(arrays) == 1:
        return arrays[0]
    total = arrays[0] + arrays[1]
    for array in arrays[2:]:
        total += array
    total /= len(arrays)
    return total


def _looks_at(model, looks):
    """Return a function (uint8 images (B, H, W, 3), names) -> the mean of a model's looks, float32 (B, H, W, C)."""
    runs = [_at_scale(model, scale) for scale in looks.scales]

    def run(images, names):
        total = 0
        for at_scale in runs:
            for mirrored in (False, True)[: 1 + looks.flip]:
                seen = images[:, :, ::-1] if mirrored else images
                found = at_scale(np.ascontiguousarray(seen), names)
                total = total + (found[:, :, ::-1] if mirrored else found)
        return total / (len(runs) * (1 + looks.flip))

    return run


def _at_scale(model, scale):
    """Return a function (images, names) -> a model's probabilities, of images that it sees larger by a factor."""
    if isinstance(model, LabelModel):
        return model.probabilities if scale == 1 else _file_at_scale(model, scale)

    def probabilities(images, height, width):
        logits = logits_at(model, images, height, width, scale)
        return ops.softmax(logits, axis=-1), all_finite(logits)

    compiled = compiled_for(model, f"probabilities at scale {scale}", probabilities)

    def run(images, names):
        found, finite = compiled(images, *images.shape[1:3])
        check_logits(finite, names, model)
        return np.asarray(found)

    return run


def _file_at_scale(model, scale):
    """`_at_scale` for what takes whole pixel values and gives no logits.

    The logarithms of probabilities are logits, less a number that is the same for all classes of a pixel: resized back,
    they have the softmax that the resized logits have.
    """
    least = np.finfo(np.float32).tiny

    def run(images, names):
        height, width = images.shape[1:3]
        seen = resized(images.astype(np.float32), *(scaled(side, scale) for side in (height, width)), antialias=True)
        seen = np.rint(np.asarray(seen)).clip(0, 255).astype(np.uint8)
        logits = np.log(np.maximum(model.probabilities(seen, names), least))
        return np.asarray(ops.softmax(resized(logits, height, width), axis=-1))

    return run


def _single(models):
    """Return the models that none of several is the mean of any more."""
    found = []
    for model in models:
        if isinstance(model, AveragingModel) and not model.looks.single:
            raise InputError(f"A model of an ensemble must look once, but one is {model.reads}. Give its models.")
        found += model.models if isinstance(model, AveragingModel) else [model]
    if not found:
        raise InputError("An ensemble needs models, got none.")
    return tuple(found)


def _layer_of(model):
    return None if isinstance(model, LabelModel) else preprocess_layer(model)


def _works_at_one_size(model):
    """Whether a model resizes every image to the size that it was trained at."""
    if isinstance(model, LabelModel):
        return bool((model.label_set or {}).get("size"))
    layer = preprocess_layer(model)
    return None not in model.input_shape[1:3] or bool(layer and layer.size)


def _name_of(model):
    return getattr(model, "name", None) or f"the model ({model.reads})"


def _check(model, looks, multiple):
    """Raise InputError for a model that cannot look so."""
    if isinstance(model, LabelModel) and not model.gives_probabilities:
        model.probabilities(None, None)  # its error says why
    if looks.tile is not None and looks.tile < 2 * multiple:
        raise InputError(f"tile must be at least {2 * multiple} for {_name_of(model)}, got {looks.tile}.")
    if looks.scales == (1.0,):
        return
    if isinstance(model, LabelModel):
        if _works_at_one_size(model):
            height, width = model.label_set["size"]
            raise InputError(
                f"--scales other than 1 need a file that keeps the size of images, but {_name_of(model)} resizes all "
                f"to {width}x{height}. Give its run, if that was trained on crops (--crop_height and --crop_width)."
            )
        return
    if None not in model.input_shape[1:3]:
        raise one_size_error(model.name, *model.input_shape[1:3])


def _check_same_classes(models):
    """Raise InputError unless the probabilities of models are of the same classes in the same order."""
    first = models[0]
    for number, model in enumerate(models[1:], 2):
        named = label_set_of(first) and label_set_of(model)
        if class_count(model) != class_count(first) or (named and class_names(model) != class_names(first)):
            raise InputError(
                "Models of an ensemble must have the same classes in the same order, but the first has "
                f"{class_count(first)} ({', '.join(class_names(first))}) and number {number} has {class_count(model)} "
                f"({', '.join(class_names(model))}). Average models of one label set."
            )
        if getattr(model, "kseg_class_map", None) != getattr(first, "kseg_class_map", None):
            raise InputError(
                f"Models of an ensemble must have the same map to the classes of the data, but number {number} has "
                "another than the first. Score it with --map, or describe both alike."
            )


def _common_label_set(models):
    """Return the label set that the models carry; of other records than the data's if one was trained on others."""
    known = [label_set for label_set in map(label_set_of, models) if label_set]
    if not known:
        return None
    records = {label_set["records"] for label_set in known if "records" in label_set}
    return {**known[0], "records": " and ".join(sorted(records))} if records else known[0]


def _in_words(models, looks):
    of_models = "" if len(models) == 1 else f"mean of {len(models)} models: "
    shown = map(reads_of, models)
    if len(models) > 1 and looks.single:
        return of_models + ", ".join(shown)
    return f"{of_models}mean of looks: {looks}"
