"""Losses as sums over pixels or images, and the counts to divide them by: `losses` and a run's step put them together.

Labels are integers (B, H, W); a pixel is valid if its label lies in [0, C) and is not `ignore_label`, any other adds
nothing. Logits are (B, H, W, C) of any float dtype; everything is computed in float32, and compiles under XLA.
"""

import keras
import numpy as np
from keras import ops

from kseg.io.errors import InputError


def valid_pixels(labels, classes, ignore_label=255):
    """Return how many labels (B, H, W) lie in [0, classes) and are not `ignore_label`, a float32 scalar."""
    return _add_up(ops.cast(_valid(ops.cast(labels, "int32"), classes, ignore_label), "float32"))


def valid_images(labels, classes, ignore_label=255):
    """Return how many of the images have a valid pixel, a float32 scalar: the count of losses of whole images."""
    found = ops.any(_valid(ops.cast(labels, "int32"), classes, ignore_label), axis=(1, 2))
    return ops.sum(ops.cast(found, "float32"))


def cross_entropy_sum(labels, logits, class_weights=None, ignore_label=255):
    """Return the softmax cross entropies of the valid pixels, times the weight of each one's class, added up."""
    labels, logits, valid = _checked(labels, logits, ignore_label)
    return _add_up(ops.where(valid, _weighted(_cross_entropies(labels, logits), labels, logits, class_weights), 0.0))


def focal_sum(labels, logits, gamma=2.0, class_weights=None, ignore_label=255):
    """Focal loss of the valid pixels, w (1 - p)^gamma * -log p for a true class of probability p, added up.

    Lin et al. 2017, arXiv 1708.02002, equation 5, over the softmax instead of one sigmoid per class; the class weights
    are its alpha. Divide by the valid pixels: the paper divides by the boxes assigned to an object, which have no
    counterpart here.
    Args: gamma: >= 0; 0 is cross entropy.
    """
    labels, logits, valid = _checked(labels, logits, ignore_label)
    losses = _cross_entropies(labels, logits)
    # 1 - p without cancellation. The floor keeps the power's slope finite at p = 1, where the loss is 0.
    wrong = ops.maximum(-ops.expm1(-losses), 1e-30)
    losses = _weighted(ops.power(wrong, gamma) * losses, labels, logits, class_weights)
    return _add_up(ops.where(valid, losses, 0.0))


def top_k_cross_entropy_sum(labels, logits, share=0.2, class_weights=None, ignore_label=255):
    """Mean cross entropy of the hardest pixels of each image, added up over the images: hard-pixel mining.

    Bootstrapped cross entropy (Wu et al. 2016, arXiv 1605.06885) with a share instead of a number of pixels, as
    DeepLab's `top_k_percent_pixels`, but of each image and its valid pixels only. Class weights apply before the
    choice.
    Args: share: in (0, 1]; ceil(share * valid pixels) count. 1 is the mean of the image.
    """
    labels, logits, valid = _checked(labels, logits, ignore_label)
    losses = _weighted(_cross_entropies(labels, logits), labels, logits, class_weights)
    # A cross entropy is >= 0 up to rounding, so what is not valid comes after all the others.
    hardest = -ops.sort(_flat(ops.where(valid, -losses, 1.0)), axis=-1)  # (B, N)
    kept = ops.ceil(share * ops.sum(ops.cast(_flat(valid), "float32"), axis=-1, keepdims=True))
    place = ops.expand_dims(ops.arange(ops.shape(hardest)[-1], dtype="float32"), 0)
    return ops.sum(ops.sum(ops.where(place < kept, hardest, 0.0), axis=-1) / ops.maximum(kept[:, 0], 1.0))


def dice_sum(labels, logits, ignore_label=255):
    """Soft Dice loss of each image, 1 - mean over classes of 2 sum(p t) / (sum(p) + sum(t)), added up over the images.

    p is the softmax, t the truth as 0 or 1, the sums are over the image's valid pixels (Drozdzal et al. 2016,
    arXiv 1608.04117; Milletari et al. 2016, arXiv 1606.04797, have the squares below). The mean is over the classes in
    the image's truth, so no sum is 0 and no smoothing constant is needed. An image without a valid pixel adds 0.
    """
    labels, logits, valid = _checked(labels, logits, ignore_label)
    mask = ops.expand_dims(valid, -1)
    truth = ops.cast(_one_hot(labels, logits) & mask, "float32")
    scores = ops.where(mask, ops.softmax(logits, axis=-1), 0.0)
    both, size, sure = (ops.sum(ops.sum(x, axis=2), axis=1) for x in (truth * scores, truth, scores))  # (B, C)
    return _add_present(1.0 - 2.0 * both / ops.maximum(size + sure, 1.0), size)


def lovasz_softmax_sum(labels, logits, ignore_label=255):
    """Lovasz-softmax loss of each image, added up over the images: the convex extension of 1 - IoU.

    Berman et al. 2018, arXiv 1705.08790, for each image and the classes in its truth (their `per_image`, "present"):
    the errors |t - p| of the valid pixels in descending order, each times what it adds to 1 - IoU if the pixels so far
    are the wrong ones; then the mean over those classes. It is 1 - their mean IoU if the softmax is 0 or 1.
    It sorts the C * H * W errors of an image: on a CPU some 20 times the cost of cross entropy.
    """
    labels, logits, valid = _checked(labels, logits, ignore_label)
    mask = ops.expand_dims(valid, -1)
    truth = _one_hot(labels, logits) & mask
    scores = ops.softmax(logits, axis=-1)
    errors = ops.where(mask, ops.where(truth, 1.0 - scores, scores), -1.0)  # what is not valid comes last
    errors, truth = (_flat(ops.moveaxis(x, -1, 1), 2) for x in (errors, ops.cast(truth, "float32")))  # (B, C, N)
    size = ops.sum(truth, axis=-1)  # whole numbers: exact below 2^24 pixels an image
    errors, order = ops.top_k(errors, ops.shape(errors)[-1])
    truth = ops.take_along_axis(truth, order, axis=-1)
    missed = ops.cumsum(truth, axis=-1)
    both = size[..., None] - missed
    union = size[..., None] + ops.cumsum(ops.cast(errors >= 0, "float32") - truth, -1)
    # Missing one takes 1 / union from the IoU, a false one both / (union (union - 1)). A difference of IoUs would lose
    # its digits in large images. Behind the last of the class, and so at what is not valid, both is 0.
    steps = ops.where(truth > 0, 1.0 / ops.maximum(union, 1.0), both / ops.maximum(union * (union - 1.0), 1.0))
    return _add_present(ops.sum(errors * ops.stop_gradient(steps), axis=-1), size)


def _checked(labels, logits, ignore_label):
    """Integer labels with 0 where they are not valid, float32 logits, and where they are."""
    labels = ops.cast(labels, "int32")
    logits = ops.cast(logits, "float32")
    shapes = tuple(labels.shape), tuple(logits.shape)
    if len(shapes[0]) + 1 != len(shapes[1]) or any(a != b for a, b in zip(*shapes, strict=False) if a and b):
        raise InputError(
            f"Need labels (B, H, W) and logits (B, H, W, C), got {shapes[0]} and {shapes[1]}. Labels are class ids "
            "without a last axis: give labels[..., 0] of (B, H, W, 1), or the argmax of one-hot classes."
        )
    valid = _valid(labels, shapes[1][-1], ignore_label)
    return ops.where(valid, labels, 0), logits, valid  # TensorFlow answers nan to a label that is no class


def _valid(labels, classes, ignore_label):
    return (labels >= 0) & (labels < classes) & ops.not_equal(labels, ignore_label)


def _cross_entropies(labels, logits):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)  # one pass, no one-hot array
    # XLA fuses the comparison into the sum: nothing of the size of the logits is stored for it.
    return ops.logsumexp(logits, axis=-1) - ops.sum(ops.where(_one_hot(labels, logits), logits, 0.0), axis=-1)


def _one_hot(labels, logits):
    return ops.equal(ops.expand_dims(labels, -1), ops.arange(logits.shape[-1], dtype="int32"))


def _weighted(losses, labels, logits, class_weights):
    if class_weights is None:
        return losses
    weights = np.asarray(class_weights, "float32")
    classes = logits.shape[-1]
    if weights.shape != (classes,):
        raise InputError(f"The model has {classes} classes, got class weights of shape {weights.shape}.")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(f"Class weights must be finite and >= 0, got {weights.tolist()}.")
    return losses * ops.take(weights, labels)


def _add_up(pixels):
    """The sum of (B, H, W). Rows first: a single float32 accumulator over millions of pixels loses digits."""
    return ops.sum(ops.sum(pixels, axis=-1))


def _add_present(losses, size):
    """The mean of the losses (B, C) over the classes that have pixels in the image, added up over the images."""
    present = ops.cast(size > 0, "float32")
    return ops.sum(ops.sum(losses * present, axis=-1) / ops.maximum(ops.sum(present, axis=-1), 1.0))


def _flat(x, leading=1):
    """The last two axes as one."""
    return ops.reshape(x, (*ops.shape(x)[:leading], -1))
