"""Pooling with indices against TensorFlow's argmax pooling, fused batch norm against Keras', Preprocess."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kseg import layers

DTYPES = ("float32", "bfloat16", "float16")


def _maps(dtype="float32", shape=(2, 8, 12, 5)):
    """Small integers: many ties, exact in every dtype."""
    return tf.cast(np.random.default_rng(0).integers(-3, 4, shape), dtype)


def _flat_positions(indices):
    """Window positions 0..3 -> positions in the flattened image, as `max_pool_with_argmax` numbers them."""
    _, height, width, channels = indices.shape
    rows = 2 * np.arange(height)[:, None, None] + indices // 2
    columns = 2 * np.arange(width)[:, None] + indices % 2
    return (rows * 2 * width + columns) * channels + np.arange(channels)


def _peer(x, cotangent):
    """Pool and unpool by TensorFlow's own operations: pooled, positions, unpooled and the gradient of x."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        pooled, where = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID", include_batch_in_index=True)
        scattered = tf.scatter_nd(tf.reshape(where, (-1, 1)), tf.reshape(pooled, (-1,)), [tf.size(x, tf.int64)])
        unpooled = tf.reshape(scattered, x.shape)
        loss = tf.reduce_sum(unpooled * cotangent) + tf.reduce_sum(pooled * pooled)
    return pooled, where % (x.shape[1] * x.shape[2] * x.shape[3]), unpooled, tape.gradient(loss, x)


def _ours(x, cotangent, training):
    pool = layers.MaxPooling2DWithArgmax()
    unpool = layers.MaxUnpooling2D()
    with tf.GradientTape() as tape:
        tape.watch(x)
        pooled, indices = pool(x, training=training)
        unpooled = unpool([pooled, indices], training=training)
        loss = tf.reduce_sum(unpooled * cotangent) + tf.reduce_sum(pooled * pooled)
    return pooled, indices, unpooled, tape.gradient(loss, x)


@pytest.fixture
def policy(request):
    """Layers of the tested dtype; the global policy comes back afterwards."""
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("mode", ["plain", "compiled", "graph", "xla"])
@pytest.mark.parametrize("policy", DTYPES, indirect=True)
def test_pool_and_unpool_equal_argmax_and_scatter(policy, mode):
    # Small integers, so that sums are exact and every comparison is for equality, ties included. TensorFlow's
    # argmax pooling on CPU is float32 only; the values are the same numbers.
    x = _maps()
    cotangent = _maps(shape=(2, 8, 12, 5)) + 2
    pooled, where, unpooled, gradient = _peer(x, cotangent)
    run = {
        "plain": lambda *args: _ours(*args, training=False),
        "compiled": lambda *args: _ours(*args, training=True),
        "graph": tf.function(lambda *args: _ours(*args, training=True)),
        "xla": tf.function(lambda *args: _ours(*args, training=True), jit_compile=True),
    }[mode]
    ours = run(tf.cast(x, policy), tf.cast(cotangent, policy))
    assert ours[1].dtype == tf.uint8 and ours[0].dtype == ours[2].dtype == policy
    np.testing.assert_array_equal(_flat_positions(ours[1].numpy().astype(int)), where)
    for got, expected in zip((ours[0], ours[2], ours[3]), (pooled, unpooled, gradient), strict=True):
        np.testing.assert_array_equal(tf.cast(got, "float32"), expected)


def test_position_is_that_of_the_first_maximum():
    # Windows (row-major): [1 1 / 1 1] -> 0; [0 2 / 2 1] -> 1; [0 0 / 3 3] -> 2; [0 0 / 0 4] -> 3.
    x = np.array([[1, 1, 0, 2, 0, 0, 0, 0], [1, 1, 2, 1, 3, 3, 0, 4]], "float32").reshape(1, 2, 8, 1)
    pooled, indices = layers.MaxPooling2DWithArgmax()(x)
    assert indices.numpy().ravel().tolist() == [0, 1, 2, 3]
    assert pooled.numpy().ravel().tolist() == [1, 2, 3, 4]
    unpooled = layers.MaxUnpooling2D()([pooled, indices]).numpy()[0, :, :, 0]
    assert unpooled.tolist() == [[1, 0, 0, 2, 0, 0, 0, 0], [0, 0, 0, 0, 3, 0, 0, 4]]


def test_odd_sizes_are_errors():
    with pytest.raises(ValueError, match="must be even for 2x2 pooling, got 33x32. Pad or crop to 34x32"):
        layers.MaxPooling2DWithArgmax()(keras.Input((33, 32, 3)))
    with pytest.raises(ValueError, match="got 4x7. Pad or crop to 4x8"):
        layers.MaxPooling2DWithArgmax()(np.zeros((1, 4, 7, 2), "float32"))


def test_unpooling_other_indices_is_an_error():
    _, indices = layers.MaxPooling2DWithArgmax()(_maps())
    with pytest.raises(ValueError, match="maps and indices of one shape"):
        layers.MaxUnpooling2D()([tf.zeros((2, 4, 4, 5)), indices])


def test_free_sizes_run_at_inference_and_an_odd_one_fails():
    image = keras.Input((None, None, 5))
    model = keras.Model(image, layers.MaxUnpooling2D()(layers.MaxPooling2DWithArgmax()(image)))
    run = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec((None, None, None, 5))])
    x = _maps()
    np.testing.assert_array_equal(run(x), _ours(x, x, training=False)[2])
    for shape in ((1, 3, 4, 5), (1, 4, 3, 5), (4, 3, 3, 5)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            run(tf.zeros(shape))


def test_training_with_free_sizes_takes_plain_operations():
    x = _maps()
    run = tf.function(lambda x: _ours(x, x, training=True)[3], input_signature=[tf.TensorSpec((None, None, None, 5))])
    np.testing.assert_array_equal(run(x), _ours(x, x, training=True)[3])


def test_training_compiles_just_the_pair():
    # The function around it is not compiled, the pair is: its calls carry XLA's mark in the traced graph.
    concrete = tf.function(lambda x: _ours(x, x, True)).get_concrete_function(tf.TensorSpec((2, 4, 4, 3)))
    calls = [op for op in concrete.graph.get_operations() if "_XlaMustCompile" in op.node_def.attr]
    assert len(calls) == 4  # pool, unpool and their gradients
    types = {op.type for op in concrete.graph.get_operations()}
    assert not types & {"MaxPoolWithArgmax", "ScatterNd", "ArgMax"}


def _pair(shape, dtype_policy="float32", **options):
    """Keras' layer and ours with equal weights that are not the initial ones."""
    options = {"momentum": 0.9, "epsilon": 1e-5, "dtype": dtype_policy, **options}
    pair = keras.layers.BatchNormalization(**options), layers.BatchNormalization(**options)
    rng = np.random.default_rng(1)
    for layer in pair:
        layer.build(shape)
    weights = [rng.uniform(0.5, 1.5, weight.shape) for weight in pair[0].weights]
    for layer in pair:
        layer.set_weights(weights)
    return pair


def _train_step(layer, x, cotangent):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, "float32") * cotangent)
    return y, tape.gradient(loss, [x] + [weight.value for weight in layer.trainable_weights])


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=str)
@pytest.mark.parametrize(
    "dtype_policy, tolerance", [("float32", 2e-5), ("mixed_bfloat16", 2e-2), ("mixed_float16", 2e-3)]
)
def test_fused_batch_norm_equals_keras(dtype_policy, tolerance, options, jit):
    # tolerance: some units of rounding of the dtype in outputs and gradients; statistics are float32 in both.
    rng = np.random.default_rng(2)
    shape = (3, 4, 5, 6)
    dtype = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}[dtype_policy]
    x = tf.cast(rng.normal(1, 2, shape), dtype)
    cotangent = tf.constant(rng.normal(size=shape), "float32")
    results = []
    for layer in _pair(shape, dtype_policy, **options):
        y, gradients = tf.function(_train_step, jit_compile=jit)(layer, x, cotangent)
        assert y.dtype == dtype
        results.append([y, *gradients])
        results[-1] += [layer.moving_mean.value, layer.moving_variance.value]
    for theirs, ours in zip(*results, strict=True):
        theirs, ours = (tf.cast(value, "float32").numpy() for value in (theirs, ours))
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())
    for theirs, ours in zip(results[0][-2:], results[1][-2:], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5)  # a variance over n - 1 would be 1.7% off


def test_batch_norm_trains_by_the_fused_kernel():
    layer = layers.BatchNormalization()
    function = tf.function(lambda x: layer(x, training=True)).get_concrete_function(tf.TensorSpec((2, 4, 4, 3)))
    assert "FusedBatchNormV3" in {op.type for op in function.graph.get_operations()}


@pytest.mark.parametrize("case", ["frozen", "axis", "rank 2", "mask", "inference"])
def test_batch_norm_falls_back_to_keras(case):
    shape = (6, 3) if case == "rank 2" else (2, 4, 4, 3)
    pair = _pair(shape, axis=1 if case == "axis" else -1, trainable=case != "frozen")
    call = {"mask": tf.constant(np.arange(32).reshape(2, 4, 4) % 3 > 0)} if case == "mask" else {}
    x = tf.constant(np.random.default_rng(3).normal(size=shape), "float32")
    outputs = [layer(x, training=case != "inference", **call) for layer in pair]
    np.testing.assert_array_equal(*outputs)
    for theirs, ours in zip(pair[0].weights, pair[1].weights, strict=True):
        np.testing.assert_array_equal(theirs, ours)


def test_batch_norm_saves_as_keras_does(tmp_path):
    theirs, ours = (keras.Sequential([keras.Input((4, 4, 3)), layer]) for layer in _pair((2, 4, 4, 3)))
    theirs.layers[0].moving_mean.assign([5.0, 6.0, 7.0])
    theirs.save_weights(tmp_path / "bn.weights.h5")
    ours.load_weights(tmp_path / "bn.weights.h5")
    np.testing.assert_array_equal(ours.layers[0].moving_mean, [5.0, 6.0, 7.0])
    assert (layers.BatchNormalization().momentum, layers.BatchNormalization().epsilon) == (0.9, 1e-5)


def test_one_value_per_channel_cannot_be_normalised():
    x = tf.ones((1, 1, 1, 3))
    with pytest.raises(ValueError, match="at least 2 images per device"):
        layers.BatchNormalization()(x, training=True)
    assert layers.BatchNormalization()(x, training=False).shape == x.shape
    # Where the batch is not known before it runs: offset out, variance 0, nothing undefined.
    layer = layers.BatchNormalization()
    layer.build(x.shape)
    run = tf.function(lambda x: layer(x, training=True), input_signature=[tf.TensorSpec((None, None, None, 3))])
    np.testing.assert_array_equal(run(x), np.zeros((1, 1, 1, 3)))
    np.testing.assert_allclose(layer.moving_variance, np.full(3, 0.9))  # .9 * 1 + .1 * 0


def test_preprocess_normalises_in_float32():
    layer = layers.Preprocess((100, 110, 120), (50, 51, 52), dtype="mixed_bfloat16")
    x = np.random.default_rng(4).uniform(0, 255, (1, 2, 2, 3)).astype("float32")
    expected = (x.astype("float64") - (100, 110, 120)) / (50, 51, 52)
    y = layer(x)
    # Rounding the input to bfloat16 first would be off by half a level, .01 here; rounding last by 2^-9.
    assert y.dtype == "bfloat16"
    np.testing.assert_allclose(tf.cast(y, "float32"), expected, rtol=2**-8, atol=1e-6)
    whole = np.full((1, 2, 2, 3), 201, "uint8")
    np.testing.assert_array_equal(layer(whole), layer(whole.astype("float32")))


def test_preprocess_describes_itself(tmp_path):
    label_set = {"name": "two", "classes": ["road", "sky"], "palette": [[1, 2, 3], [4, 5, 6]]}
    layer = layers.Preprocess((1, 2, 3), (4, 5, 6), multiple=32, size=(64, 96))
    model = keras.Sequential([keras.Input((64, 96, 3)), layer])
    layer.label_set = label_set
    layer.mean = (7.0, 8.0, 9.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert type(loaded.label_set) is dict and loaded.label_set == label_set
    assert (loaded.mean, loaded.scale, loaded.multiple, loaded.size) == ((7, 8, 9), (4, 5, 6), 32, (64, 96))
    with pytest.raises(ValueError, match="3 positive scales"):
        layers.Preprocess((1, 2, 3), (4, 5, 0))
