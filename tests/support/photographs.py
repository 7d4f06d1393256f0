"""Photographs and labels of every format, mode and orientation as bytes, and what Pillow reads of them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

H = 23  # odd, as W: bits of a row do not fill its last byte
W = 37
RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (H, W), np.uint8)
ALPHA = RANDOM.integers(0, 256, (H, W), np.uint8)
RGB = RANDOM.integers(0, 256, (H, W, 3), np.uint8)
DEEP = RANDOM.integers(0, 65536, (H, W, 4)).astype(np.uint16)
SMOOTH = Image.fromarray(RGB).resize((W, H), Image.Resampling.BICUBIC, (5, 5, 17, 13))
IDS = RANDOM.integers(0, 3, (H, W), np.uint8)
ORIENTATION = 0x0112


def saved(image, kind, orientation=None, **options):
    """The bytes of a Pillow image or array in a format, with an EXIF orientation."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options |= {"tiffinfo": {ORIENTATION: orientation}} if kind == "TIFF" else {"exif": exif}
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows, bits, colour_type):
    """A PNG of modes that Pillow does not write; rows: the bytes of each row, unfiltered."""
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    head = struct.pack(">IIBBBBB", W, H, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def packed(values, bits):
    """The rows of values of 1, 2 or 4 bits as PNG packs them: the first one highest."""
    row_bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - bits :].reshape(len(values), -1)
    return [row.tobytes() for row in np.packbits(row_bits, axis=1)]


def without_adobe_marker(jpeg):
    """CMYK as it is, not inverted: what a JPEG without the APP14 segment holds."""
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]


def tiff_with(data, tag, value):
    """The bytes of a little-endian TIFF with one SHORT or LONG entry of its first directory changed."""
    data = bytearray(data)
    start = int.from_bytes(data[4:8], "little")
    for entry in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        if int.from_bytes(data[entry : entry + 2], "little") == tag:
            data[entry + 8 : entry + 12] = value.to_bytes(4, "little")
            return bytes(data)
    raise KeyError(tag)


def pillow_rgb(data):
    """What the module promises: Pillow, turned, converted; 16-bit grey by its high byte."""
    image = Image.open(io.BytesIO(data))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return np.dstack([(np.asarray(image).astype(int) // 256).astype(np.uint8)] * 3)
    return np.asarray(image.convert("RGB"))


PALETTE = Image.fromarray(RGB).quantize(200)
SMALL_PALETTE = Image.fromarray(RGB).quantize(10)
LA = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
RGBA = Image.fromarray(np.dstack([RGB, ALPHA]))
PLAIN = {  # a record keeps these bytes
    "png_L": saved(GREY, "PNG"),
    "png_RGB": saved(RGB, "PNG"),
    "png_LA": saved(LA, "PNG"),
    "png_RGBA": saved(RGBA, "PNG"),
    "png_P": saved(PALETTE, "PNG"),
    "png_P_alpha": saved(PALETTE, "PNG", transparency=bytes(range(200))),
    "png_P4_alpha": saved(SMALL_PALETTE, "PNG", transparency=3),
    "png_1": saved(GREY > 99, "PNG"),
    "png_L2": png(packed(GREY >> 6, 2), 2, 0),
    "png_L4": png(packed(GREY >> 4, 4), 4, 0),
    "png_transparent_colour": saved(RGB, "PNG", transparency=tuple(RGB[0, 0].tolist())),
    "png_L16": saved(DEEP[..., 0], "PNG"),
    "png_LA16": png([row.astype(">u2").tobytes() for row in DEEP[..., :2]], 16, 4),
    "png_RGB16": png([row.astype(">u2").tobytes() for row in DEEP[..., :3]], 16, 2),
    "png_RGBA16": png([row.astype(">u2").tobytes() for row in DEEP], 16, 6),
    "apng": saved(RGB, "PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
    "jpeg": saved(SMOOTH, "JPEG"),
    "jpeg_progressive": saved(SMOOTH, "JPEG", progressive=True, quality=60, subsampling="4:2:2"),
    "jpeg_L": saved(SMOOTH.convert("L"), "JPEG"),
    "jpeg_rgb": saved(SMOOTH, "JPEG", keep_rgb=True),
    "mpo": saved(SMOOTH, "MPO", save_all=True, append_images=[Image.fromarray(RGB)]),
}
CONVERTED = {  # and these as PNG
    "jpeg_CMYK_adobe": saved(SMOOTH.convert("CMYK"), "JPEG"),
    "jpeg_CMYK": without_adobe_marker(saved(SMOOTH.convert("CMYK"), "JPEG")),
    "webp": saved(SMOOTH, "WEBP", quality=70),
    "webp_lossless": saved(RGB, "WEBP", lossless=True),
    "webp_RGBA": saved(RGBA, "WEBP", lossless=True, exact=True),
    "webp_animated": saved(SMOOTH, "WEBP", save_all=True, append_images=[Image.fromarray(RGB)]),
    "bmp": saved(RGB, "BMP"),
    "bmp_L": saved(GREY, "BMP"),
    "bmp_P": saved(PALETTE, "BMP"),
    "bmp_1": saved(GREY > 99, "BMP"),
    "bmp_RGBA": saved(RGBA, "BMP"),
    "tiff": saved(RGB, "TIFF"),
    "tiff_lzw": saved(RGB, "TIFF", compression="tiff_lzw"),
    "tiff_jpeg": saved(SMOOTH, "TIFF", compression="jpeg"),
    "tiff_L": saved(GREY, "TIFF"),
    "tiff_white_is_zero": tiff_with(saved(GREY, "TIFF"), 262, 0),
    "tiff_LA": saved(LA, "TIFF"),
    "tiff_RGBA": saved(RGBA, "TIFF"),
    "tiff_P": saved(PALETTE, "TIFF"),
    "tiff_1": saved(GREY > 99, "TIFF", compression="group4"),
    "tiff_CMYK": saved(SMOOTH.convert("CMYK"), "TIFF"),
    "tiff_YCbCr": saved(SMOOTH.convert("YCbCr"), "TIFF", compression="jpeg"),
    "tiff_L16": saved(DEEP[..., 0], "TIFF"),
    "tiff_L16_big_endian": saved(Image.frombytes("I;16B", (W, H), DEEP[..., 0].astype(">u2").tobytes()), "TIFF"),
    "tiff_pages": saved(RGB, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
}
for number in range(2, 9):
    CONVERTED[f"turned_{number}_jpeg"] = saved(SMOOTH, "JPEG", number)
    CONVERTED[f"turned_{number}_png"] = saved(RGB, "PNG", number)
    CONVERTED[f"turned_{number}_webp"] = saved(SMOOTH, "WEBP", number)
    CONVERTED[f"turned_{number}_tiff"] = saved(RGB, "TIFF", number)
    CONVERTED[f"turned_{number}_tiff_lzw"] = saved(DEEP[..., 0], "TIFF", number, compression="tiff_lzw")
    CONVERTED[f"turned_{number}_mpo"] = saved(SMOOTH, "MPO", number, save_all=True, append_images=[SMOOTH])
PLAIN["turned_1_jpeg"] = saved(SMOOTH, "JPEG", 1)
PLAIN["turned_9_jpeg"] = saved(SMOOTH, "JPEG", 9)  # no such orientation
PHOTOGRAPHS = PLAIN | CONVERTED

LABELS = {
    "png": saved(IDS, "PNG"),
    "png_P": saved(PALETTE, "PNG"),
    "png_LA": saved(Image.merge("LA", [Image.fromarray(IDS), Image.fromarray(ALPHA)]), "PNG"),
    "png_RGB": saved(np.dstack([IDS] * 3), "PNG"),
    "png_RGBA": saved(np.dstack([IDS, IDS, IDS, ALPHA]), "PNG"),
    "png_16": saved(IDS.astype(np.uint16), "PNG"),
    "png_2": png(packed(IDS, 2), 2, 0),
    "png_4": png(packed(IDS, 4), 4, 0),
    "png_1": saved(IDS == 1, "PNG"),
    "tiff": saved(IDS, "TIFF"),
    "tiff_lzw": saved(IDS, "TIFF", compression="tiff_lzw"),
    "tiff_deflate": saved(IDS, "TIFF", compression="tiff_adobe_deflate"),
    "tiff_16": saved(IDS.astype(np.uint16), "TIFF"),
    "tiff_32": saved(IDS.astype(np.int32), "TIFF"),
    "tiff_float": saved(IDS.astype(np.float32), "TIFF"),
    "tiff_P": saved(PALETTE, "TIFF"),
    "tiff_LA": saved(Image.merge("LA", [Image.fromarray(IDS), Image.fromarray(ALPHA)]), "TIFF"),
    "tiff_1": saved(IDS == 1, "TIFF", compression="group4"),
    "tiff_RGB": saved(np.dstack([IDS] * 3), "TIFF"),
    "bmp": saved(IDS, "BMP"),
    "bmp_P": saved(PALETTE, "BMP"),
    "bmp_1": saved(IDS == 1, "BMP"),
    "bmp_RGB": saved(np.dstack([IDS] * 3), "BMP"),
}
