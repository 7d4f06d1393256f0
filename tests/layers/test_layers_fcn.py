"""ScaledL2Normalization against values by hand, and the bilinear kernel of a transposed convolution."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import layers


def test_scaled_l2_normalization():
    # (3, 4) has the length 5: with scales 10 and 20 it becomes (6, 16). Zeros stay zeros.
    layer = layers.ScaledL2Normalization(dtype="float32")
    layer.build((None, 2))
    np.testing.assert_array_equal(layer.gamma, [10, 10])
    layer.gamma.assign([10, 20])
    x = tf.constant([[3.0, 4.0], [0.0, 0.0], [3e-18, -4e18]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
        loss = tf.reduce_sum(y)
    np.testing.assert_allclose(y, [[6, 16], [0, 0], [0, -20]], rtol=1e-6, atol=1e-6)
    gradient, scales = tape.gradient(loss, [x, layer.gamma.value])
    # At zero the derivative is scale / sqrt(epsilon); at (3, 4) that of 10 x / r + 20 y / r:
    # (10 * 16 - 20 * 12) / 125 and (20 * 9 - 10 * 12) / 125. Each scale has the sum of the unit vectors.
    np.testing.assert_allclose(gradient[1], [1e4, 2e4], rtol=1e-5)
    np.testing.assert_allclose(gradient[0], [-0.64, 0.48], rtol=1e-5)
    np.testing.assert_allclose(scales, [0.6, 0.8 - 1], rtol=1e-5)
    assert np.isfinite(gradient).all()


def test_scaled_l2_normalization_sums_in_float32(tmp_path):
    # 4096 ones: in bfloat16 their sum would stop at 256. 10 / sqrt(4096) = 0.15625 is exact in bfloat16.
    layer = layers.ScaledL2Normalization(scale=10, dtype="mixed_bfloat16")
    y = layer(tf.ones((1, 4096), "bfloat16"))
    assert y.dtype == "bfloat16" and layer.gamma.dtype == "float32"
    np.testing.assert_array_equal(tf.cast(y, "float32"), np.full((1, 4096), 0.15625))
    model = keras.Sequential([keras.Input((2, 2, 3)), layers.ScaledL2Normalization(scale=3, epsilon=0.5)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert (loaded.scale, loaded.epsilon) == (3, 0.5)
    with pytest.raises(ValueError, match="epsilon must be positive, got 0"):
        layers.ScaledL2Normalization(epsilon=0)


def test_bilinear_kernel():
    # Stride 2: each line is 1/4, 3/4, 3/4, 1/4 (Long et al.'s code); a class upsamples itself alone.
    line = np.array([1, 3, 3, 1]) / 4
    kernel = np.asarray(layers.BilinearInitializer()((4, 4, 2, 2)))
    np.testing.assert_array_equal(kernel, np.multiply.outer(np.outer(line, line), np.eye(2)))
    with pytest.raises(ValueError, match=r"shape \(k, k, C, C\) with even k, got \(3, 3, 2, 2\)"):
        layers.BilinearInitializer()((3, 3, 2, 2))
