"""PNG and JPEG bytes to arrays and back, with errors that name the file (Pillow; no TensorFlow)."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from kseg.errors import InputError

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
)
IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
LABEL_EXTENSIONS = (".png", ".tif", ".tiff", ".bmp")  # of formats that keep every number
_IMAGE_MODES = ("RGB", "L", "RGBA", "P", "LA", "1")
MAX_PIXELS = 2**26  # 8192x8192: a few kilobytes can claim any size, and decoding takes what they claim
_LIMIT = f"kseg reads images of at most {MAX_PIXELS:,} pixels. Cut it into tiles or make it smaller"


def _header(data: bytes, what: str) -> Image.Image:
    """Open without decoding; ValueError where the bytes are no PNG or JPEG, or claim more than MAX_PIXELS."""
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own limit is higher
        raise InputError(f"{what}: {_LIMIT}") from None
    except _BROKEN:
        known = data.startswith((b"\x89PNG", b"\xff\xd8\xff"))
        why = "truncated or damaged" if known else "not a PNG or JPEG file"
        raise InputError(f"{what}: {why} ({len(data)} bytes)") from None
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{what}: {image.width}x{image.height}, but {_LIMIT}")
    return image


def _open(data: bytes, what: str) -> Image.Image:
    """Decode fully; ValueError where the bytes are no PNG or JPEG or end early."""
    image = _header(data, what)
    try:
        if image.format == "PNG":
            image.verify()  # every chunk's checksum; the object cannot be used afterwards
            image = Image.open(io.BytesIO(data), formats=("PNG",))
        elif data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # no end marker after the last scan's start
            raise InputError("the end marker is missing")
        image.load()
    except _BROKEN as error:
        raise InputError(f"{what}: truncated or damaged ({error})") from None
    return image


def decode_image(data: bytes, what: str) -> tuple[np.ndarray, str]:
    """Return (uint8 RGB (H, W, 3), "png" or "jpeg"); ValueError "WHAT: why" where that is impossible."""
    image = _open(data, what)
    if image.mode not in _IMAGE_MODES:
        raise InputError(f"{what}: pixels of mode {image.mode}; convert it to 8-bit RGB")
    return np.asarray(image.convert("RGB")), image.format.lower()


def decode_label(data: bytes, what: str) -> tuple[np.ndarray, bool]:
    """Return (uint8 ids (H, W), whether these bytes are an 8-bit grey PNG, which every reader takes alike).

    Palette images give their indices; grey of 1, 2 or 4 bits gives the stored numbers.
    """
    image = _open(data, what)
    if image.format != "PNG":
        raise InputError(f"{what}: labels must be PNG, got {image.format}, which changes ids")
    if image.mode not in ("L", "P", "1"):
        hint = '; colour-coded labels need "labels": "color" in classes.json' if "RGB" in image.mode else ""
        raise InputError(f"{what}: labels must be 8-bit ids, got mode {image.mode}{hint}")
    ids, bits, colour_type = np.asarray(image).astype(np.uint8), data[24], data[25]  # IHDR
    if colour_type == 0 and bits in (2, 4):
        ids = ids // (255 // (2**bits - 1))  # Pillow stretches grey to 0..255
    return ids, (bits, colour_type) == (8, 0)


def decode_instances(data: bytes, what: str) -> np.ndarray:
    """Return uint16 instance ids (H, W) of a grey PNG of 16 (or 8) bits; ValueError "WHAT: why" for anything else."""
    image = _open(data, what)
    if image.format != "PNG" or (data[24], data[25]) not in ((16, 0), (8, 0)):  # IHDR: bits, colour type
        raise InputError(f"{what}: instance maps must be grey PNG of 16 bits, got {image.format} of mode {image.mode}")
    return np.asarray(image).astype(np.uint16)


def decode_colours(data: bytes, what: str) -> np.ndarray:
    """Return a colour-coded label as uint8 RGB (H, W, 3)."""
    image = _open(data, what)
    if image.format != "PNG":
        raise InputError(f"{what}: labels must be PNG, got {image.format}, which changes colours")
    if image.mode not in _IMAGE_MODES:
        raise InputError(f"{what}: labels must be 8-bit colours, got mode {image.mode}")
    return np.asarray(image.convert("RGB"))


def image_size(data: bytes, what: str) -> tuple[int, int]:
    """Decode fully and return (height, width): for files that are stored as they came."""
    image = _open(data, what)
    return image.height, image.width


def header(data: bytes, what: str) -> tuple[tuple[int, int], str]:
    """Return ((height, width), "png" or "jpeg") from the first bytes, without decoding."""
    image = _header(data, what)
    return (image.height, image.width), image.format.lower()


def encode(array: np.ndarray, image_format: str = "png") -> bytes:
    """Return PNG bytes (lossless), or JPEG of quality 95 without chroma subsampling."""
    buffer = io.BytesIO()
    options = {"quality": 95, "subsampling": 0} if image_format == "jpeg" else {}
    Image.fromarray(array).save(buffer, image_format.upper(), **options)
    return buffer.getvalue()


def resize(array: np.ndarray, size: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Return the array at size (height, width): nearest for labels, else bilinear with antialiasing."""
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), how))


def resize_png(data: bytes, size: tuple[int, int]) -> bytes:
    """Return a PNG of numbers (8 or 16 bits) at size (height, width), nearest."""
    numbers = np.asarray(Image.open(io.BytesIO(data)))
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * m / n).astype(np.int64), m - 1)
        for n, m in zip(size, numbers.shape, strict=True)
    )
    return encode(numbers[rows][:, columns].astype(np.uint16 if numbers.dtype != np.uint8 else np.uint8))
