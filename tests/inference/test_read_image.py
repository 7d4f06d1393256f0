"""Arrays that are no image are refused, with what makes one of them."""

import numpy as np
import pytest

from kseg.inference.read_image import read_image
from kseg.io.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (IMAGE / np.float32(255), "(image * 255).round().astype('uint8')"),
        (IMAGE.astype(np.float64), "image.round().clip(0, 255).astype('uint8')"),
        (IMAGE.astype(np.int64), "image.round().clip(0, 255).astype('uint8')"),
        (IMAGE[None], "image[0]"),
        (IMAGE.transpose(2, 0, 1), "image.transpose(1, 2, 0)"),
        (np.dstack([IMAGE, IMAGE[:, :, 0]]), "image[:, :, :3]"),
        (IMAGE[:, :, 0], "numpy.stack([image] * 3, axis=-1)"),
    ],
)
def test_the_advice_makes_an_image_that_is_read(array, advice):
    with pytest.raises(InputError) as error:
        read_image(array, "photo")
    said = f"An image must be uint8 (H, W, 3) RGB, got {array.dtype} of shape {array.shape} for photo. "
    assert str(error.value).startswith(said) and advice in str(error.value)
    made = read_image(eval(advice, {"image": array, "numpy": np}))  # as the user would type it
    wanted = np.repeat(IMAGE[:, :, :1], 3, -1) if array.ndim == 2 else IMAGE
    np.testing.assert_array_equal(made, wanted)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (IMAGE / 127.5 - 1, "Its values are -"),
        (np.full((4, 5, 3), np.nan), "Its values must be finite."),
        (IMAGE.astype(np.uint16) * 257, "give the image as it was before that, with 0 to 255"),
        (np.zeros((4, 5, 5), np.uint8), "for photo."),
        (np.stack([IMAGE, IMAGE]), "give its images one by one, or kseg.predict their list, list(image)."),
        (np.zeros((0, 5, 3), np.float32), "for photo."),
    ],
)
def test_other_arrays_are_refused_with_their_values(array, why):
    with pytest.raises(InputError) as error:
        read_image(array, "photo")
    assert why in str(error.value)


@pytest.mark.parametrize(("image", "kind"), [(5, "int"), (IMAGE.tolist(), "list"), (IMAGE[0].tolist(), "list")])
def test_what_is_no_array_is_called_by_its_type(image, kind):
    with pytest.raises(InputError) as error:
        read_image(image, "photo")
    assert f"got {kind} for photo." in str(error.value)
    assert ("numpy.array(image, 'uint8')" in str(error.value)) == (kind == "list")


def test_the_advice_for_lists_makes_the_image():
    made = eval("numpy.array(image, 'uint8')", {"image": IMAGE.tolist(), "numpy": np})  # as the message has it
    np.testing.assert_array_equal(read_image(made), IMAGE)
