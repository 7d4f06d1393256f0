"""The epoch plan: every random choice of an epoch, made in NumPy before a pixel is read.

From (seed, epoch) comes one row for each position of each step: which record, how it is scaled, cropped, mirrored and
coloured. Whoever executes rows (tf.data here, NumPy under another backend) has no random choice left, so neither the
number of parallel calls nor a restart in the middle changes a single byte.
"""

import numpy as np

from kseg.io.errors import InputError

ROW = np.dtype(
    [
        ("record", np.int64),
        ("scale", np.float32),
        ("top", np.float32),  # where the crop (or the padded image) lies, 0 to 1 of the room there is
        ("left", np.float32),
        ("flip", np.bool_),
        ("color", np.float32, (3, 4)),  # RGB -> RGB, last column added
    ]
)

_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def check_batch(records, batch_size):
    """Raise InputError if a split has fewer records than one step takes."""
    if records < batch_size:
        raise InputError(f"A batch of {batch_size} needs at least as many training images, got {records}.")


def epoch_plan(records, batch_size, seed, epoch, augmentation):
    """Return the plan of one epoch.

    Args:
        records: how many records the split has.
        batch_size: rows of a step. The records beyond the last full batch are left out of this epoch. The order is new
            in each epoch, so over many epochs all are used equally.
        seed, epoch: non-negative ints; the same pair gives the same plan.
        augmentation: Augmentation.
    Returns:
        array of dtype ROW, shape (steps, batch_size).
    Raises:
        ValueError: fewer records than one step takes.
    """
    steps = records // batch_size
    check_batch(records, batch_size)
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    rows = np.zeros(steps * batch_size, ROW)
    rows["record"] = random.permutation(records)[: len(rows)]
    rows["scale"] = random.uniform(augmentation.scale_min, augmentation.scale_max, len(rows))
    below_one = np.nextafter(np.float32(1), np.float32(0))  # rounding to float32 must not reach 1
    rows["top"], rows["left"] = np.minimum(random.uniform(size=(2, len(rows))), below_one)
    rows["flip"] = (random.uniform(size=len(rows)) < 0.5) & augmentation.flip
    shifts = random.uniform(-1, 1, (len(rows), 4)) * (
        augmentation.brightness,
        augmentation.contrast,
        augmentation.saturation,
        augmentation.hue,
    )
    rows["color"] = [color_matrix(*shift) for shift in shifts]
    return rows.reshape(steps, batch_size)


def color_matrix(brightness, contrast, saturation, hue):
    """Return the (3, 4) affine map of RGB 0..255 that changes the four by these amounts.

    Hue turns and saturation stretches the two chroma axes of YIQ, contrast stretches about mid-grey 127.5, brightness
    shifts by a share of 255: linear all, so one product does what four passes over the image would.
    """
    angle = 2 * np.pi * hue
    turn = (1 + saturation) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    chroma = np.eye(3)
    chroma[1:, 1:] = turn
    matrix = (1 + contrast) * np.linalg.inv(_YIQ) @ chroma @ _YIQ
    shift = np.full((3, 1), 255 * brightness - 127.5 * contrast)
    return np.concatenate([matrix, shift], axis=1)
