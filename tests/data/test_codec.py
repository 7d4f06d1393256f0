"""Photographs and labels of every format, mode and orientation, against Pillow's own reading."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from kseg.data import codec
from kseg.errors import InputError

H, W = 23, 37  # odd: bits of a row do not fill its last byte
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


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_have_the_pixels_of_pillows_conversion(name):
    data = PHOTOGRAPHS[name]
    pixels, kind = codec.decode_image(data, name)
    np.testing.assert_array_equal(pixels, pillow_rgb(data))
    is_jpeg = ("jpeg" in name or "mpo" in name) and not name.startswith("tiff")
    assert pixels.dtype == np.uint8 and kind == ("jpeg" if is_jpeg else "png")
    assert codec.header(data, name) == (pixels.shape[:2], kind)
    assert codec.is_plain(data, name) == (name in PLAIN)


# At which corner, [row, column], each orientation shows the stored pixel [0, 0] (EXIF 2.32, tag 274): 6, for one, says
# that the stored first row is the right-hand side and the stored first column the top.
CORNERS = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


@pytest.mark.parametrize("number", CORNERS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_orientations_are_those_of_exif(kind, number):
    """One dark corner, stored first; orientations of 5 and more swap height and width."""
    stored = np.full((16, 32, 3), 255, np.uint8)
    stored[:8, :8] = 0
    data = saved(stored, kind, number)
    shown = codec.decode_image(data, "x")[0]
    assert shown.shape == ((32, 16, 3) if number >= 5 else (16, 32, 3))
    assert shown[CORNERS[number]].max() < 100
    assert sorted(shown[r, c].min() > 200 for r in (0, -1) for c in (0, -1)) == [False, True, True, True]
    if kind != "TIFF":  # Pillow turns it by itself
        assert codec.orientation(data, "x") == number
        as_stored = codec.decode_image(data, "x", upright=False)[0]
        assert as_stored.shape == stored.shape and as_stored[0, 0].max() < 100
        assert codec.header(data, "x", upright=False)[0] == (16, 32)
        assert codec.is_plain(data, "x", upright=False) == (kind != "WEBP")


def test_an_orientation_after_the_pixels_or_in_xmp_counts_and_damaged_exif_does_not():
    plain = saved(RGB, "PNG")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    late = plain[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[-12:]  # before IEND; without the "Exif\0\0" of JPEG
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    with_xmp = plain[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + plain[33:]  # after IHDR
    for data in (late, with_xmp):
        np.testing.assert_array_equal(codec.decode_image(data, "x")[0], np.rot90(RGB, -1))
        assert codec.header(data, "x")[0] == (W, H) and not codec.is_plain(data, "x")
    damaged = plain[:33] + chunk(b"eXIf", b"II*\0\xff\xff") + plain[33:]
    np.testing.assert_array_equal(codec.decode_image(damaged, "x")[0], RGB)


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


@pytest.mark.parametrize("name", LABELS)
def test_labels_have_the_numbers_that_were_saved(name):
    ids, plain = codec.decode_label(LABELS[name], name)
    wanted = np.asarray(PALETTE) if name.endswith("_P") else IDS == 1 if name.endswith("_1") else IDS
    np.testing.assert_array_equal(ids, wanted)
    assert ids.dtype == np.uint8 and plain == (name == "png")


def test_grey_tiff_of_two_and_four_bits_holds_the_stored_numbers():
    for bits in (2, 4):
        rows = b"".join(packed(IDS, bits))
        tags = [(256, 4, W), (257, 4, H), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
        tags += [(278, 4, H), (279, 4, len(rows))]
        directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tags)
        data = b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + directory + b"\0\0\0\0"
        np.testing.assert_array_equal(codec.decode_label(data, "x")[0], IDS)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_a_label_with_an_orientation_is_turned_by_its_own(kind, number):
    for array in (IDS, IDS.astype(np.uint16)):
        data = saved(array, kind, number)
        wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        ids, plain = codec.decode_label(data, "x")
        np.testing.assert_array_equal(ids, wanted)
        assert plain == (kind == "PNG" and number == 1 and array.dtype == np.uint8)
    data = saved(RGB, kind, number)
    np.testing.assert_array_equal(codec.decode_colours(data, "x"), pillow_rgb(data))
    if kind == "PNG":
        instances, size = codec.upright_png(saved(DEEP[..., 0], "PNG", number), "x")
        wanted = pillow_rgb(saved(DEEP[..., 0] // 256 * 256, "PNG", number))[..., 0]
        assert size == wanted.shape
        np.testing.assert_array_equal(codec.decode_instances(instances, "x") // 256, wanted)


REFUSED_LABELS = {
    "jpeg": (saved(IDS, "JPEG"), "must be PNG, TIFF or BMP, got JPEG, which changes ids"),
    "webp": (saved(np.dstack([IDS] * 3), "WEBP"), "got WEBP, which changes ids"),
    "tiff_jpeg": (saved(IDS, "TIFF", compression="jpeg"), "a compression that changes ids"),
    "beyond": (saved(IDS.astype(np.uint16) * 200, "PNG"), rf"ids of 0..255, got 400 in {(IDS == 2).sum()} pixels"),
    "negative": (saved(IDS.astype(np.int32) - 1, "TIFF"), "ids of 0..255, got -1"),
    "fraction": (saved(IDS.astype(np.float32) / 2, "TIFF"), "ids of 0..255, got 0.5"),
    "nan": (saved(np.full((H, W), np.nan, np.float32), "TIFF"), "ids of 0..255, got nan"),
    "colours": (saved(RGB, "PNG"), 'got mode RGB; colour-coded labels need "labels": "color"'),
    "png_LA16": (PHOTOGRAPHS["png_LA16"], "got mode .* of 16 bits"),
    "png_RGB16": (PHOTOGRAPHS["png_RGB16"], "got mode RGB of 16 bits"),
    "cmyk": (PHOTOGRAPHS["tiff_CMYK"], "got mode CMYK"),
    "pages": (PHOTOGRAPHS["tiff_pages"], "one picture, got 2"),
    "apng": (PHOTOGRAPHS["apng"], "one picture, got 2"),
    "inverted": (PHOTOGRAPHS["tiff_white_is_zero"], "WhiteIsZero"),
}


@pytest.mark.parametrize("name", REFUSED_LABELS)
def test_labels_that_may_have_changed_or_mean_something_else_are_refused_by_name(name):
    data, why = REFUSED_LABELS[name]
    with pytest.raises(InputError, match=f"^{name}: .*{why}"):
        codec.decode_label(data, name)


@pytest.mark.parametrize("name", ["png_RGB16", "tiff_L16", "jpeg", "tiff_jpeg"])
def test_colour_coded_labels_of_other_colours_than_shown_are_refused(name):
    with pytest.raises(InputError, match=f"^{name}: labels must "):
        codec.decode_colours(PHOTOGRAPHS[name], name)


def test_formats_without_a_road_are_refused_by_name():
    refused = {
        "gif": (saved(PALETTE, "GIF"), "not a PNG, JPEG, WebP, TIFF or BMP file"),
        "ppm": (saved(RGB, "PPM"), "not a PNG, JPEG, WebP, TIFF or BMP file"),
        "float": (saved(IDS.astype(np.float32), "TIFF"), "pixels of mode F; convert it to 8-bit RGB"),
        "lab": (saved(Image.frombytes("LAB", (W, H), RGB.tobytes()), "TIFF"), "pixels of mode LAB"),
        "inverted": (tiff_with(PHOTOGRAPHS["tiff_L16"], 262, 0), "pixels of mode I;16"),
        "thumbnail": (saved(RGB, "TIFF", tiffinfo={254: 1}), "first picture is a reduced copy"),
    }
    for name, (data, why) in refused.items():
        with pytest.raises(InputError, match=f"^{name}: .*{why}"):
            codec.decode_image(data, name)


SMALLEST_OF_EACH_READER = (
    "bmp",
    "bmp_P",
    "tiff",
    "tiff_lzw",
    "tiff_jpeg",
    "tiff_1",
    "webp",
    "webp_lossless",
    "png_L16",
    "jpeg",
)


@pytest.mark.parametrize("name", SMALLEST_OF_EACH_READER)
def test_a_cut_file_is_an_error_that_names_it_or_the_whole_picture(name):
    """TIFF keeps its directory or some unused bytes last: what still decodes must be what was there."""
    data, whole = PHOTOGRAPHS[name], codec.decode_image(PHOTOGRAPHS[name], name)[0]
    refused = 0
    for length in np.linspace(0, len(data) - 1, 60).astype(int).tolist():
        try:
            np.testing.assert_array_equal(codec.decode_image(data[:length], name)[0], whole)
        except InputError as error:
            assert str(error).startswith(f"{name}: ")
            refused += 1
    assert refused > 50


def huge(name):
    """A file of a few bytes that claims 20000x10000 pixels, or what its format has room for."""
    size = 20000, 10000
    if name == "tiff":
        return tiff_with(tiff_with(saved(GREY, "TIFF"), 256, size[0]), 257, size[1])
    if name == "bmp":
        data = bytearray(saved(RGB, "BMP"))
        data[18:26] = struct.pack("<ii", *size)
        return bytes(data)
    data = bytearray(saved(RGB, "WEBP", lossless=name == "webp_lossless"))
    if name == "webp_lossless":
        data[21:25] = (16383 | 9999 << 14).to_bytes(4, "little")
    else:
        data[26:30] = struct.pack("<HH", 16383, 9999)
    return bytes(data)


@pytest.mark.parametrize("name", ["tiff", "bmp", "webp", "webp_lossless"])
def test_declared_sizes_beyond_the_limit_are_refused_before_decoding(name, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # Pillow's own limit must not be what stops it
    for read in (codec.decode_image, codec.decode_label, codec.header, codec.is_plain):
        with pytest.raises(InputError, match=rf"^big: \d+x\d+, but kseg reads images of at most {codec.MAX_PIXELS:,}"):
            read(huge(name), "big")


def test_a_tiff_of_a_huge_tile_is_refused_before_decoding():
    tiles = [(256, 4, W), (257, 4, H), (258, 3, 8), (259, 3, 5), (262, 3, 1), (277, 3, 1), (322, 4, 2**15)]
    tiles += [(323, 4, 2**15), (324, 4, 8), (325, 4, 8)]
    directory = struct.pack("<H", len(tiles)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tiles)
    data = b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + directory + b"\0\0\0\0"
    with pytest.raises(InputError, match="^big: 32768x32768, but kseg reads images of at most"):
        codec.decode_image(data, "big")
