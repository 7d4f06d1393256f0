"""Photographs and labels of every format, mode and orientation, against Pillow's own reading."""

import io
import struct

import numpy as np
import pytest
from photographs import (
    DEEP,
    GREY,
    IDS,
    LABELS,
    ORIENTATION,
    PALETTE,
    PHOTOGRAPHS,
    PLAIN,
    RGB,
    H,
    W,
    chunk,
    packed,
    pillow_rgb,
    saved,
    tiff_with,
)
from PIL import Image, ImageOps

from kseg.io import images
from kseg.io.errors import InputError


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_have_the_pixels_of_pillows_conversion(name):
    data = PHOTOGRAPHS[name]
    pixels, kind = images.decode_image(data, name)
    np.testing.assert_array_equal(pixels, pillow_rgb(data))
    is_jpeg = ("jpeg" in name or "mpo" in name) and not name.startswith("tiff")
    assert pixels.dtype == np.uint8 and kind == ("jpeg" if is_jpeg else "png")
    assert images.header(data, name) == (pixels.shape[:2], kind)
    assert images.is_plain(data, name) == (name in PLAIN)


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
    shown = images.decode_image(data, "x")[0]
    assert shown.shape == ((32, 16, 3) if number >= 5 else (16, 32, 3))
    assert shown[CORNERS[number]].max() < 100
    np.testing.assert_array_equal(images.upright_rgb(Image.open(io.BytesIO(data)), "x"), shown)
    assert sorted(shown[r, c].min() > 200 for r in (0, -1) for c in (0, -1)) == [False, True, True, True]
    if kind != "TIFF":  # Pillow turns it by itself
        assert images.orientation(data, "x") == number
        as_stored = images.decode_image(data, "x", upright=False)[0]
        assert as_stored.shape == stored.shape and as_stored[0, 0].max() < 100
        assert images.header(data, "x", upright=False)[0] == (16, 32)
        assert images.is_plain(data, "x", upright=False) == (kind != "WEBP")


def test_an_orientation_after_the_pixels_or_in_xmp_counts_and_damaged_exif_does_not():
    plain = saved(RGB, "PNG")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    late = plain[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[-12:]  # before IEND; without the "Exif\0\0" of JPEG
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    with_xmp = plain[:33] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) + plain[33:]  # after IHDR
    for data in (late, with_xmp):
        np.testing.assert_array_equal(images.decode_image(data, "x")[0], np.rot90(RGB, -1))
        assert images.header(data, "x")[0] == (W, H) and not images.is_plain(data, "x")
    damaged = plain[:33] + chunk(b"eXIf", b"II*\0\xff\xff") + plain[33:]
    np.testing.assert_array_equal(images.decode_image(damaged, "x")[0], RGB)


@pytest.mark.parametrize("name", LABELS)
def test_labels_have_the_numbers_that_were_saved(name):
    ids, plain = images.decode_label(LABELS[name], name)
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
        np.testing.assert_array_equal(images.decode_label(data, "x")[0], IDS)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("number", range(1, 9))
def test_a_label_with_an_orientation_is_turned_by_its_own(kind, number):
    for array in (IDS, IDS.astype(np.uint16)):
        data = saved(array, kind, number)
        wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
        ids, plain = images.decode_label(data, "x")
        np.testing.assert_array_equal(ids, wanted)
        assert plain == (kind == "PNG" and number == 1 and array.dtype == np.uint8)
    data = saved(RGB, kind, number)
    np.testing.assert_array_equal(images.decode_colours(data, "x"), pillow_rgb(data))
    if kind == "PNG":
        instances, size = images.upright_png(saved(DEEP[..., 0], "PNG", number), "x")
        wanted = pillow_rgb(saved(DEEP[..., 0] // 256 * 256, "PNG", number))[..., 0]
        assert size == wanted.shape
        np.testing.assert_array_equal(images.decode_instances(instances, "x") // 256, wanted)


REFUSED_LABELS = {
    "jpeg": (saved(IDS, "JPEG"), "must be PNG, TIFF or BMP, got JPEG, which changes ids"),
    "webp": (saved(np.dstack([IDS] * 3), "WEBP"), "got WEBP, which changes ids"),
    "tiff_jpeg": (saved(IDS, "TIFF", compression="jpeg"), "a compression that changes ids"),
    "beyond": (saved(IDS.astype(np.uint16) * 200, "PNG"), rf"ids of 0..255, got 400 in {(IDS == 2).sum()} pixels"),
    "two beyond": (
        saved(IDS.astype(np.uint16) * 300, "PNG"),
        rf"got 300 in {(IDS == 1).sum()} pixels, 600 in {(IDS == 2).sum()} pixels",
    ),
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
        images.decode_label(data, name)


@pytest.mark.parametrize("name", ["png_RGB16", "tiff_L16", "jpeg", "tiff_jpeg"])
def test_colour_coded_labels_of_other_colours_than_shown_are_refused(name):
    with pytest.raises(InputError, match=f"^{name}: labels must "):
        images.decode_colours(PHOTOGRAPHS[name], name)


def test_images_of_a_12_bit_camera_are_named_nearly_black_once(caplog):
    images._warn_of_black_images.cache_clear()
    ramp = np.linspace(0, 65535, W * H).reshape(H, W).astype(np.uint16)
    for values in (ramp, ramp * 0, np.full_like(ramp, 4096)):
        images.decode_image(saved(values, "PNG"), "fine.png")
    assert not caplog.records
    for _ in range(2):
        images.decode_image(saved(ramp // 16, "PNG"), "dark.png")
    assert [record.getMessage()[:40] for record in caplog.records] == ["16-bit grey images with no value above 4"]


def test_formats_without_a_road_are_refused_by_name():
    refused = {
        "gif": (saved(PALETTE, "GIF"), "not a PNG, JPEG, WebP, TIFF or BMP file"),
        "ppm": (saved(RGB, "PPM"), "not a PNG, JPEG, WebP, TIFF or BMP file"),
        "float": (saved(IDS.astype(np.float32), "TIFF"), "pixel mode F is not supported; convert it to 8-bit RGB"),
        "lab": (saved(Image.frombytes("LAB", (W, H), RGB.tobytes()), "TIFF"), "pixel mode LAB"),
        "inverted": (tiff_with(PHOTOGRAPHS["tiff_L16"], 262, 0), "pixel mode I;16"),
        "thumbnail": (saved(RGB, "TIFF", tiffinfo={254: 1}), "first picture is a thumbnail"),
    }
    for name, (data, why) in refused.items():
        with pytest.raises(InputError, match=f"^{name}: .*{why}"):
            images.decode_image(data, name)


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


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's about the cut directory
@pytest.mark.parametrize("name", SMALLEST_OF_EACH_READER)
def test_a_cut_file_is_an_error_that_names_it_or_the_whole_picture(name):
    """TIFF keeps its directory or some unused bytes last: what still decodes must be what was there."""
    data = PHOTOGRAPHS[name]
    whole = images.decode_image(PHOTOGRAPHS[name], name)[0]
    refused = 0
    for length in np.linspace(0, len(data) - 1, 60).astype(int).tolist():
        try:
            np.testing.assert_array_equal(images.decode_image(data[:length], name)[0], whole)
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
    for read in (images.decode_image, images.decode_label, images.header, images.is_plain):
        with pytest.raises(InputError, match=rf"^big: \d+x\d+, but kseg reads images of at most {images.MAX_PIXELS:,}"):
            read(huge(name), "big")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_large_images_that_are_allowed_bring_no_warning(kind, monkeypatch):
    """Pillow warns above MAX_IMAGE_PIXELS, and fails above twice as many."""
    data = saved(RGB, kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W - 1)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(data))
    assert images.decode_image(data, "x", most=images.MAX_TILED_PIXELS)[0].shape == (H, W, 3)


def test_a_tiff_of_a_huge_tile_is_refused_before_decoding():
    tiles = [(256, 4, W), (257, 4, H), (258, 3, 8), (259, 3, 5), (262, 3, 1), (277, 3, 1), (322, 4, 2**15)]
    tiles += [(323, 4, 2**15), (324, 4, 8), (325, 4, 8)]
    directory = struct.pack("<H", len(tiles)) + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in tiles)
    data = b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + directory + b"\0\0\0\0"
    with pytest.raises(InputError, match="^big: 32768x32768, but kseg reads images of at most"):
        images.decode_image(data, "big")


@pytest.mark.parametrize("read", [images.decode_image, images.decode_label, images.decode_colours])
def test_what_is_no_picture_is_called_what_it_is(read):
    """HEIF is a box of its length, "ftyp" and a brand (ISO 23008-12); telephones save "heic", also as .jpg."""
    box = (24).to_bytes(4, "big") + b"ftyp" + b"heic" + bytes(12)
    with pytest.raises(InputError, match="^x.jpg: HEIC is not supported; convert to JPEG$"):
        read(box, "x.jpg")
    with pytest.raises(InputError, match=r"^x.jpg: not a PNG, JPEG, .* file \(24 bytes\)$"):
        read(box.replace(b"heic", b"mp42"), "x.jpg")
    with pytest.raises(InputError, match=r"^x.jpg: empty \(0 bytes\)$"):
        read(b"", "x.jpg")
