"""The same numbers for every contestant, as NumPy arrays."""

import numpy as np


def maps(shape, seed=0):
    """Feature maps (B, H, W, C), standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def scene(batch, height, width, num_classes):
    """A training batch: uint8 images (B, H, W, 3) and int32 labels (B, H, W)."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, height, width, 3), np.uint8)
    return images, random.integers(0, num_classes, (batch, height, width), np.int32)
