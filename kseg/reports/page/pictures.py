"""The pictures beside the page: photographs, label maps and who is right where, each with a thumbnail where needed."""

import os

import numpy as np
from PIL import Image

FIRST_COLOUR = (37, 99, 235)  # blue, and orange below: also told apart by the colour-blind
OTHER_COLOUR = (234, 88, 12)
_BOTH_WRONG = (30, 30, 36)
_UNKNOWN = (255, 255, 255)  # predicted outside the classes
_THUMBNAIL = 320  # pixels of width
_PHOTO_QUALITY = 88
_THUMBNAIL_QUALITY = 78

BOTH_RIGHT, FIRST_RIGHT, OTHER_RIGHT, BOTH_WRONG = range(4)


def who_is_right(truth, first, second, valid):
    """Say for each pixel which of two predictions is right; void counts as BOTH_RIGHT: there is nothing to see.

    Args:
        truth, first, second: class ids (H, W). valid: bool (H, W), the pixels of a class.
    Returns:
        uint8 (H, W) of BOTH_RIGHT, FIRST_RIGHT, OTHER_RIGHT, BOTH_WRONG.
    """
    table = np.array([[BOTH_WRONG, OTHER_RIGHT], [FIRST_RIGHT, BOTH_RIGHT]], np.uint8)
    right = table[(first == truth).astype(np.intp), (second == truth).astype(np.intp)]
    return np.where(valid, right, np.uint8(BOTH_RIGHT))


class Pictures:
    """Writes the pictures of one image after the other into the folder of a page.

    photos/00000.jpg, truth/00000.png, model0/00000.png, ..., right1/00000.png (who is right, model 0 or model 1), and
    in thumbnails/ 00000.jpg and 00000.1.png. Label maps are palette PNG of the labels' size: small and exact.

    Args:
        folder: exists. palette: C colours (R, G, B). models: how many. photos: whether images come with photographs.
    """

    def __init__(self, folder, palette, models, photos=True):
        self._folder = os.fspath(folder)
        self._models = models
        classes = len(palette)
        colours = [*palette, _UNKNOWN]
        self._labels = np.array(colours, np.uint8).tobytes(), bytes([255] * (classes + 1))
        self._truth = self._labels[0], bytes([255] * classes + [0])  # void lets the photograph through
        marks = [_UNKNOWN, FIRST_COLOUR, OTHER_COLOUR, _BOTH_WRONG]
        self._right = np.array(marks, np.uint8).tobytes(), bytes([0, 215, 215, 190])
        names = ["truth", "thumbnails", *map("model{}".format, range(models))]
        if photos:
            names.append("photos")
        for name in names:
            os.mkdir(os.path.join(self._folder, name))
        for model in range(1, models):
            os.mkdir(os.path.join(self._folder, f"right{model}"))

    def add(self, index, image, truth, predictions, valid):
        """Write the pictures of image `index`.

        Args:
            image: uint8 RGB (h, w, 3), None without photographs: the truth's map is the thumbnail then. truth,
                predictions: uint8 class ids (H, W), C for what is no class, and M of the same. valid: bool (H, W).
        """
        number = f"{index:05}"
        size = _thumbnail_size(truth.shape if image is None else image.shape)
        if image is None:
            small = np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
            self._write_ids(f"thumbnails/{number}.png", small, self._truth)
        else:
            photo = Image.fromarray(np.ascontiguousarray(image))
            self._write(f"photos/{number}.jpg", photo, "JPEG", quality=_PHOTO_QUALITY)
            small = photo.resize(size, Image.Resampling.BOX)
            self._write(f"thumbnails/{number}.jpg", small, "JPEG", quality=_THUMBNAIL_QUALITY)
        self._write_ids(f"truth/{number}.png", truth, self._truth)
        for model, prediction in enumerate(predictions):
            self._write_ids(f"model{model}/{number}.png", prediction, self._labels)
        for model in range(1, self._models):
            right = who_is_right(truth, predictions[0], predictions[model], valid)
            self._write_ids(f"right{model}/{number}.png", right, self._right)
            small = np.asarray(Image.fromarray(right).resize(size, Image.Resampling.NEAREST))
            self._write_ids(f"thumbnails/{number}.{model}.png", small, self._right)

    def _write_ids(self, name, ids, colours):
        picture = Image.fromarray(np.ascontiguousarray(ids))
        picture.putpalette(colours[0])
        self._write(name, picture, "PNG", transparency=colours[1])

    def _write(self, name, picture, file_format, **options):
        picture.save(os.path.join(self._folder, name), file_format, **options)  # the folder is renamed when it is whole


def _thumbnail_size(shape):
    height, width = shape[:2]
    small = min(_THUMBNAIL, width)
    return small, max(1, round(height * small / width))
