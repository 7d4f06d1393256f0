"""Image files to arrays and back, upright, with errors that name the file (Pillow; no TensorFlow).

Photographs: PNG, JPEG, WebP, TIFF and BMP; if a file holds several pictures, the first. Labels: PNG, TIFF and BMP with
one picture, formats that keep every number. Photographs become RGB as Pillow converts them: transparency is dropped,
not blended. For 16-bit photographs the high byte (value // 256) is used, as Pillow does for 16-bit RGB and TensorFlow
for all 16-bit PNG. Pillow's conversion of 16-bit grey is not used: it makes all values above 255 white.

Every picture (also a label or an instance map) is rotated or mirrored as its own EXIF orientation says (JPEG, PNG,
WebP, TIFF), as a viewer shows it. Records are the exception: their pixels are used as stored, since TensorFlow does not
rotate them either. `kseg prepare` stores upright pixels.
"""

import contextlib
import functools
import io
import logging
import re
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

from kseg.io.errors import InputError
from kseg.io.text import count_text, first_names

HEIC_EXTENSIONS = (".heic", ".heif")
NO_HEIC = "HEIC is not supported; convert to JPEG"
IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
LABEL_EXTENSIONS = (".png", ".tif", ".tiff", ".bmp")  # of formats that keep every number
BROKEN = (  # what Pillow raises for bytes that are no image, or a damaged one
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"BM")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO 23008-12, annex B
_IMAGE_MODES = ("RGB", "L", "RGBA", "P", "LA", "1", "PA", "RGBX", "CMYK", "YCbCr")  # Pillow converts them to RGB
_LOG = logging.getLogger("kseg")
_CAMERA_BITS = 12  # of many cameras whose files have 16
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_COLOUR_MODES = ("RGB", "L", "RGBA", "P", "LA", "1", "PA")
_LOSSLESS = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000)  # TIFF's compressions: none, CCITT, LZW, deflate, ...
_TIFF_SUBFILE = 254
_TIFF_BITS = 258
_TIFF_COMPRESSION = 259
_TIFF_PHOTOMETRIC = 262
_TIFF_TILE = (322, 323)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PNG_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # chunks that may hold an orientation
MAX_PIXELS = 2**26  # 8192x8192: a few kilobytes can claim any size, and decoding takes what they claim
MAX_TILED_PIXELS = 2**27  # 16384x8192: of an image that a model looks at through windows
_COLOURS = 'colour-coded labels need "labels": "color" in classes.json, and dataset "folder"'


def _header(data: bytes, what: str, most: int = MAX_PIXELS) -> Image.Image:
    """Open without decoding; ValueError if the format is not known, or the bytes claim more than `most` pixels."""
    if not data:
        raise InputError(f"{what}: empty (0 bytes)")
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        raise InputError(f"{what}: {NO_HEIC}")
    try:
        if data[8:12] == b"WEBP":
            _check_size(_webp_size(data), what, most)  # before Pillow, which allocates the canvas when it opens one
        with large_images_allowed(most > MAX_PIXELS):
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        tile = [_tiff(image, tag, 0) for tag in _TIFF_TILE]
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's own limit is higher
        pixels = int(re.search(r"\d+", str(error))[0])
        raise InputError(f"{what}: {pixels:,} pixels, but {_limit(pixels, most)}") from None
    except BROKEN:
        why = "not a PNG, JPEG, WebP, TIFF or BMP file"
        if data.startswith(SIGNATURES):
            why = "truncated or damaged"
        raise InputError(f"{what}: {why} ({len(data)} bytes)") from None
    _check_size(image.size, what, most)
    _check_size(tile, what, most)
    return image


def _check_size(size, what: str, most: int) -> None:
    if size[0] * size[1] > most:
        raise InputError(f"{what}: {size[0]}x{size[1]}, but {_limit(size[0] * size[1], most)}")


def _limit(pixels: int, most: int) -> str:
    advice = "Cut it into tiles or make it smaller"
    if most < MAX_TILED_PIXELS >= pixels:
        advice += f" (predict --tile labels images of up to {MAX_TILED_PIXELS:,})"
    return f"kseg reads images of at most {most:,} pixels. {advice}"


@contextlib.contextmanager
def large_images_allowed(allowed: bool = True):
    """A block in which Pillow does not warn of images of more than 89 million pixels; other threads must not run."""
    if not allowed:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return the (width, height) that a WebP file claims (RFC 9649, sections 2.5 to 2.7); (0, 0) for no such file."""
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return tuple(int.from_bytes(data[i : i + 2], "little") & 0x3FFF for i in (26, 28))


def _open(data: bytes, what: str, most: int = MAX_PIXELS) -> Image.Image:
    """Decode fully, not yet rotated; ValueError if the bytes are not an image or end early."""
    image = _header(data, what, most)
    try:
        with large_images_allowed(most > MAX_PIXELS):
            if image.format == "PNG":
                image.verify()  # every chunk's checksum; the object cannot be used afterwards
                image = Image.open(io.BytesIO(data), formats=("PNG",))
            elif _is_jpeg(image) and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):  # of the last scan
                raise InputError("the end marker is missing")
            elif _tiff(image, _TIFF_SUBFILE, 0) & 1:  # raw files of cameras, too
                raise InputError("its first picture is a thumbnail. Save the full picture alone")
            image.load()  # Pillow looks at a TIFF's size again
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    except BROKEN as error:
        raise InputError(f"{what}: truncated or damaged ({error})") from None
    return image


def _is_jpeg(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO")  # MPO: a JPEG of several pictures


def _orientation(image: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation; 1 if none can be read, as image viewers do."""
    if image.format == "TIFF" or (image.format == "PNG" and not any(mark in data for mark in _PNG_EXIF)):
        return 1  # Pillow turns TIFF itself; the other marks save PNG's decoding, which Pillow needs to look for more
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except BROKEN:
        return 1


def _upright(image: Image.Image, data: bytes, upright: bool = True) -> Image.Image:
    value = upright and _orientation(image, data)
    if value in _TURNS:
        return image.transpose(_TURNS[value])
    return image


def orientation(data: bytes, what: str) -> int:
    """Return the EXIF orientation of an image file that is not a TIFF: 1 is upright, 2 to 8 are rotated or mirrored."""
    value = _orientation(_header(data, what), data)
    return value if value in _TURNS else 1


def decode_image(data: bytes, what: str, upright: bool = True, most: int = MAX_PIXELS) -> tuple[np.ndarray, str]:
    """Return a photograph's pixels and the format in which a record stores it.

    Args:
        data: the bytes of a PNG, JPEG, WebP, TIFF or BMP file. what: its name in messages.
        upright: rotate the picture as its EXIF orientation says; False gives it as stored. most: pixels that it may
            have.
    Returns:
        (uint8 RGB (H, W, 3), "jpeg" for a JPEG, else "png").
    Raises:
        ValueError: "WHAT: why" if it cannot be read.
    """
    image = _open(data, what, most)
    return _rgb(image, _upright(image, data, upright), what), _kept_format(image)


def upright_rgb(image: Image.Image, what: str) -> np.ndarray:
    """Return uint8 RGB (H, W, 3) of Pillow's image, rotated as its EXIF says; ValueError as of `decode_image`."""
    try:
        turned = ImageOps.exif_transpose(image)
    except BROKEN as error:
        raise InputError(f"{what}: truncated or damaged ({error})") from None
    return _rgb(image, turned, what)


def _rgb(image: Image.Image, turned: Image.Image, what: str) -> np.ndarray:
    """Return uint8 RGB (H, W, 3) of an upright image; image: as it was opened."""
    if image.mode in _GREY_16 and _tiff(image, _TIFF_PHOTOMETRIC, 1) == 1:
        grey = np.asarray(turned)
        if 0 < grey.max() < 1 << _CAMERA_BITS:
            _warn_of_black_images()
        grey = (grey >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode not in _IMAGE_MODES:
        raise InputError(f"{what}: pixel mode {image.mode} is not supported; convert it to 8-bit RGB")
    if turned.mode != "RGB":  # Pillow would copy it
        turned = turned.convert("RGB")
    return np.asarray(turned)


@functools.cache  # once, for a folder of such images would fill the screen
def _warn_of_black_images():
    _LOG.warning(
        "16-bit grey images with no value above 4,095 of 65,535 are nearly black to a model. If their camera gives 12 "
        "bits or fewer, scale the values to 16 bits first."
    )


def _tiff(image: Image.Image, tag: int, default):
    return image.tag_v2.get(tag, default) if image.format == "TIFF" else default


def _kept_format(image: Image.Image) -> str:
    return "jpeg" if _is_jpeg(image) else "png"


def decode_label(data: bytes, what: str, upright: bool = True, advice: str = _COLOURS) -> tuple[np.ndarray, bool]:
    """Return a label's ids and whether these bytes are an 8-bit grey PNG, which every reader decodes alike.

    Palette images give their indices, others their grey values as stored, at any bit depth: grey, with or without alpha
    (dropped), or colours with R = G = B. `upright` as in `decode_image`; `advice`: what to do about other colours.

    Returns:
        (uint8 (H, W), bool).
    Raises:
        ValueError: not a lossless file with one picture; values outside 0..255; colours.
    """
    image, bits = _open_label(data, what, "ids")
    mode = image.mode
    if bits >= 16 and mode not in ("I", "F", *_GREY_16):
        mode = f"{mode} of {bits} bits"
    turned = _upright(image, data, upright)
    numbers = np.asarray(turned)
    if mode in ("LA", "PA"):
        numbers = numbers[..., 0]
    elif mode in ("RGB", "RGBA") and (numbers[..., :1] == numbers[..., 1:3]).all():
        numbers = numbers[..., 0]
    elif mode not in ("L", "P", "1", "I", "F", *_GREY_16):
        hint = ""
        if "RGB" in mode:
            hint = f"; {advice}"
        raise InputError(f"{what}: labels must be 8-bit ids, got mode {mode}{hint}")
    wrong = ~np.isin(numbers, range(256))
    if wrong.any():
        values, counts = np.unique(numbers[wrong], return_counts=True)
        shown = first_names(
            [f"{value} in {count_text(n, 'pixel')}" for value, n in zip(values, counts, strict=True)], 3
        )
        raise InputError(f"{what}: labels must be ids of 0..255, got {shown}")
    ids = numbers.astype(np.uint8)
    if mode == "L" and bits in (2, 4) and image.format != "BMP":
        ids = ids // (255 // (2**bits - 1))  # Pillow stretches grey to 0..255
    return ids, image.format == "PNG" and tuple(data[24:26]) == (8, 0) and turned is image


def palette(data: bytes, what: str) -> list[tuple[int, int, int]]:
    """Return the colours by index that a palette image draws its numbers in; none of any other image."""
    image = _open(data, what)
    if image.mode not in ("P", "PA"):
        return []
    values = iter(image.getpalette())
    return list(zip(values, values, values, strict=True))


def is_one_bit(data: bytes, what: str) -> bool:
    """Return whether a picture has one bit a pixel, so that its numbers are 0 and 1; from the header."""
    image = _header(data, what)
    return image.mode == "1" or (image.format == "PNG" and data[24] == 1)  # IHDR: a palette of two colours


def _open_label(data: bytes, what: str, lost: str) -> tuple[Image.Image, int]:
    """Return (image, bits of a channel) of a file that keeps every number; ValueError says why it does not."""
    image = _open(data, what)
    if image.format not in ("PNG", "TIFF", "BMP"):
        raise InputError(f"{what}: labels must be PNG, TIFF or BMP, got {image.format}, which changes {lost}")
    if _tiff(image, _TIFF_COMPRESSION, 1) not in _LOSSLESS:
        raise InputError(f"{what}: labels must keep every number, got TIFF with a compression that changes {lost}")
    if _tiff(image, _TIFF_PHOTOMETRIC, 1) == 0:
        raise InputError(f"{what}: a TIFF with inverted grey (WhiteIsZero) does not say which ids it holds. Save a PNG")
    try:
        pictures = getattr(image, "n_frames", 1)
    except BROKEN as error:  # a second directory of a TIFF that is none
        raise InputError(f"{what}: truncated or damaged ({error})") from None
    if pictures > 1:
        raise InputError(f"{what}: a label file must hold one picture, got {pictures}")
    if image.format == "PNG":
        return image, data[24]  # IHDR
    return image, max(_tiff(image, _TIFF_BITS, (8,)))


def decode_instances(data: bytes, what: str) -> np.ndarray:
    """Return uint16 instance ids (H, W) of a grey PNG of 16 (or 8) bits, as stored; ValueError for anything else."""
    image = _open(data, what)
    if image.format != "PNG" or (data[24], data[25]) not in ((16, 0), (8, 0)):  # IHDR: bits, colour type
        raise InputError(f"{what}: instance maps must be 16-bit grey PNG, got {image.format} of mode {image.mode}")
    return np.asarray(image).astype(np.uint16)


def decode_colours(data: bytes, what: str) -> np.ndarray:
    """Return a colour-coded label as uint8 RGB (H, W, 3); alpha is dropped."""
    image, bits = _open_label(data, what, "colours")
    if image.mode not in _COLOUR_MODES or bits > 8:
        raise InputError(f"{what}: labels must be 8-bit colours, got mode {image.mode} of {bits} bits")
    return np.asarray(_upright(image, data).convert("RGB"))


def upright_png(data: bytes, what: str) -> tuple[bytes, tuple[int, int]]:
    """Return a PNG of numbers and its (height, width), decoded fully: its own bytes, or new ones where it is turned."""
    image = _open(data, what)
    turned = _upright(image, data)
    if turned is not image:
        data = encode(np.asarray(turned))
    return data, turned.size[::-1]


def header(data: bytes, what: str, upright: bool = True, most: int = MAX_PIXELS) -> tuple[tuple[int, int], str]:
    """Return ((height, width), format) of what `decode_image` gives, from the first bytes where that is enough."""
    image = _header(data, what, most)
    size = image.size[::-1]
    if upright and _orientation(image, data) in (5, 6, 7, 8):
        size = image.size
    return size, _kept_format(image)


def is_plain(data: bytes, what: str, upright: bool = True) -> bool:
    """Return whether TensorFlow decodes these bytes to the pixels that `decode_image` gives; from the header.

    It does for a PNG and for a grey or RGB JPEG, unless they are to be rotated.
    """
    image = _header(data, what)
    known = image.format == "PNG" or (_is_jpeg(image) and image.mode in ("L", "RGB"))
    return known and not (upright and _orientation(image, data) in _TURNS)


def encode(array: np.ndarray, image_format: str = "png") -> bytes:
    """Return PNG bytes (lossless), or JPEG of quality 95 without chroma subsampling."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, image_format.upper(), quality=95, subsampling=0)  # PNG has neither
    return buffer.getvalue()


def resize(array: np.ndarray, size: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Return the array at size (height, width): nearest for labels, else bilinear with antialiasing."""
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(array).resize((size[1], size[0]), how))


def resize_png(data: bytes, size: tuple[int, int]) -> bytes:
    """Return a PNG of numbers (8 or 16 bits) at size (height, width), nearest."""
    numbers = np.asarray(Image.open(io.BytesIO(data)))
    if numbers.dtype != np.uint8:
        numbers = numbers.astype(np.uint16)
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * m / n).astype(np.int64), m - 1)
        for n, m in zip(size, numbers.shape, strict=True)
    )
    return encode(numbers[rows][:, columns])
