"""One file, every road: records by NumPy and by TensorFlow, prediction and the graph that an export holds."""

import json

import numpy as np
import pytest
import tensorflow as tf
from photographs import DEEP, IDS, LABELS, PALETTE, PHOTOGRAPHS, PLAIN, RGB, H, W, pillow_rgb, saved
from PIL import Image
from scenes import make_cityscapes

from kseg.data.checks.record_faults import check_records
from kseg.data.pipeline.examples import Examples
from kseg.data.pipeline.examples_tensorflow import RecordSource, decode_images
from kseg.data.pipeline.load import load_dataset
from kseg.data.records import manifest
from kseg.data.records.prepare import prepare_dataset
from kseg.inference.read_image import read_image
from kseg.io import images as codec
from kseg.io.errors import InputError
from kseg.io.tfrecord import frame, parse_example, serialize_example

EXTENSIONS = {"jpeg": ".jpg", "mpo": ".jpg", "apng": ".png"}
CLASSES = {"classes": [{"id": i, "name": f"class {i}", "color": [i, 0, 0]} for i in range(200)]}


def extension(name):
    kind = name.split("_")[2 if name.startswith("turned") else 0]
    return EXTENSIONS.get(kind, f".{kind}")


def labels_of(size):
    return np.random.default_rng(size[0]).integers(0, 3, size, np.uint8)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Records of all photographs (train), and of all kinds of label (val), from files of their own extensions."""
    root = tmp_path_factory.mktemp("own")
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / "source" / split / kind).mkdir(parents=True)
    source = root / "source"
    for i, (name, data) in enumerate(PHOTOGRAPHS.items()):
        (source / f"train/images/{i:03}{extension(name)}").write_bytes(data)
        label = labels_of(pillow_rgb(data).shape[:2])
        (source / f"train/labels/{i:03}.png").write_bytes(saved(label, "PNG"))
    for i, (name, data) in enumerate(LABELS.items()):
        (source / f"val/images/l{i:03}.png").write_bytes(saved(RGB, "PNG"))
        (source / f"val/labels/l{i:03}{extension(name)}").write_bytes(data)
    (source / "classes.json").write_text(json.dumps(CLASSES))
    prepare_dataset("folder", source, root / "records", workers=1, progress=False)
    return root / "records"


def test_both_readers_and_prediction_give_pillows_pixels_upright(prepared):
    examples = Examples(prepared, "train")
    batches = load_dataset(prepared, "train").as_numpy_iterator()
    assert len(examples) == len(PHOTOGRAPHS)
    for (name, data), (images, labels), i in zip(PHOTOGRAPHS.items(), batches, range(len(examples)), strict=True):
        wanted = pillow_rgb(data)
        for image in (images[0], examples[i][0], read_image(data)):
            np.testing.assert_array_equal(image, wanted, err_msg=name)
        for label in (labels[0], examples[i][1]):
            np.testing.assert_array_equal(label, labels_of(wanted.shape[:2]), err_msg=name)


def test_records_keep_plain_bytes_and_hold_png_of_all_else(prepared):
    split = manifest.load_manifest(prepared).split("train")
    for i, (name, data) in enumerate(PHOTOGRAPHS.items()):
        example = parse_example(split.read(i))
        stored = example["image/encoded"]
        kind = example["image/format"].decode()
        assert (stored == data) == (name in PLAIN), name
        assert kind == ("jpeg" if stored.startswith(b"\xff\xd8") else "png") and (name in PLAIN or kind == "png"), name


def test_both_readers_give_the_numbers_of_every_kind_of_label(prepared):
    examples = Examples(prepared, "val")
    batches = load_dataset(prepared, "val").as_numpy_iterator()
    for name, (_, labels), i in zip(LABELS, batches, range(len(examples)), strict=True):
        wanted = np.asarray(PALETTE) if name.endswith("_P") else IDS == 1 if name.endswith("_1") else IDS
        np.testing.assert_array_equal(labels[0], wanted, err_msg=name)
        np.testing.assert_array_equal(examples[i][1], wanted, err_msg=name)


def test_the_exported_graph_decodes_what_is_stored_or_says_what_it_wants():
    """PNG and JPEG as `predict` reads them, but not turned; all else is refused by name."""
    for name, data in PHOTOGRAPHS.items():
        kind = extension(name)
        if kind in (".png", ".jpg") and "CMYK" not in name:
            wanted = codec.decode_image(data, name, upright=False)[0]
            np.testing.assert_array_equal(decode_images(tf.constant([data]))[0], wanted, err_msg=name)
        else:
            why = "CMYK JPEG cannot be decoded here" if kind == ".jpg" else "Send PNG or JPEG files"
            with pytest.raises(tf.errors.InvalidArgumentError, match=why):
                decode_images(tf.constant([data]))
    gif = saved(PALETTE, "GIF")
    with pytest.raises(tf.errors.InvalidArgumentError, match="Send PNG or JPEG files"):
        decode_images(tf.constant([gif]))


def test_the_exported_graph_takes_a_batch_of_one_size():
    data = [saved(RGB, "PNG"), saved(RGB[::-1], "PNG"), saved(Image.fromarray(RGB), "JPEG")]
    wanted = np.stack([codec.decode_image(one, "x")[0] for one in data])
    in_graph = tf.function(decode_images, input_signature=[tf.TensorSpec((None,), tf.string)])
    np.testing.assert_array_equal(in_graph(tf.constant(data)), wanted)
    wider = np.zeros((H, W + 1, 3), np.uint8)
    huge = bytearray(data[0])
    huge[16:24] = (20000).to_bytes(4, "big") * 2
    refused = {
        rf"(?s)must be of one size, got.*\[{H} {W}\].*\[{H} {W + 1}\]": [data[0], saved(wider, "JPEG")],
        "at least one encoded image": [],
        "at most 67,108,864 pixels, got.*20000 20000": [bytes(huge)],
    }
    for why, batch in refused.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match=why):
            in_graph(tf.constant(batch, tf.string))
    for broken in (data[0][:200], data[2][:200], b"", b"\x89PNG", b"\xff\xd8\xff"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            in_graph(tf.constant([broken]))


def write_foreign(folder, images, labels):
    """Records as another tool writes them: the files' own bytes, sizes as stored."""
    shard = b""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        height, width = codec.header(image, "x", upright=False)[0]
        values = {"image/encoded": image, "image/filename": f"scene{i}", "image/height": height, "image/width": width}
        shard += frame(serialize_example(values | {"image/segmentation/class/encoded": label}))
    (folder / "val-00000-of-00001").write_bytes(shard)


def test_records_of_other_tools_count_as_stored_for_both_readers_and_the_check_warns(tmp_path):
    names = ["turned_6_jpeg", "turned_3_png", "jpeg_CMYK", "webp", "tiff_L16", "bmp", "jpeg"]
    images = [PHOTOGRAPHS[name] for name in names]
    labels = [saved(IDS, "PNG", orientation) for orientation in (1, 3, 6, 1, 1, 1, 1)]
    write_foreign(tmp_path, images, labels)
    examples = Examples(tmp_path, "val", label_space="train_ids")
    source = RecordSource(tmp_path, "val", label_space="train_ids")
    for i, (image, label) in enumerate(source.batches().as_numpy_iterator()):
        wanted = codec.decode_image(images[i], "x", upright=False)[0]
        assert wanted.shape == (H, W, 3)
        for got in (image[0], examples[i][0]):
            np.testing.assert_array_equal(got, wanted, err_msg=names[i])
        for got in (label[0], examples[i][1]):
            np.testing.assert_array_equal(got, IDS, err_msg=names[i])
    _, problems, warnings = check_records(examples.manifest)
    assert not problems
    turned = [line for line in warnings if "EXIF" in line]
    assert len(turned) == 1 and turned[0].startswith("val: 2 of 7 records hold a photograph whose EXIF orientation")
    assert turned[0].endswith("prepare them again: scene0, scene1.")


def write_one(root, photograph, label, suffix=".jpg"):
    for kind, name, data in (("images", f"a{suffix}", photograph), ("labels", "a.png", label)):
        (root / "train" / kind).mkdir(parents=True)
        (root / "train" / kind / name).write_bytes(data)
    (root / "classes.json").write_text(json.dumps(CLASSES))
    return root


def test_a_label_of_the_unturned_photograph_is_refused_with_the_reason(tmp_path):
    root = write_one(tmp_path / "own", PHOTOGRAPHS["turned_6_jpeg"], saved(IDS, "PNG"))
    reason = rf"a.jpg: sizes differ: image {H}x{W}, label {W}x{H}; its EXIF orientation rotates the photograph"
    with pytest.raises(InputError, match=reason):
        prepare_dataset("folder", root, tmp_path / "records", workers=1, progress=False)
    root = write_one(tmp_path / "other", PHOTOGRAPHS["jpeg"], saved(IDS[:, 1:], "PNG"))
    with pytest.raises(InputError, match="sizes differ") as error:
        prepare_dataset("folder", root, tmp_path / "records", workers=1, progress=False)
    assert "EXIF" not in str(error.value)


@pytest.mark.parametrize("image_format", [None, "jpeg", "png"])
def test_a_turned_photograph_is_resized_and_converted_upright(tmp_path, image_format):
    data = PHOTOGRAPHS["turned_8_jpeg"]
    label = labels_of((W, H))
    root = write_one(tmp_path / "own", data, saved(label, "PNG"))
    options = {"image_format": image_format, "workers": 1, "progress": False}
    prepare_dataset("folder", root, tmp_path / "small", store_size=(W // 2, H), **options)
    image, small = Examples(tmp_path / "small", "train")[0]
    wanted = codec.resize(pillow_rgb(data), (W // 2, H))
    assert image.shape == wanted.shape and np.abs(image.astype(int) - wanted).mean() < 8  # JPEG of noise at 95
    np.testing.assert_array_equal(small, codec.resize(label, (W // 2, H), nearest=True))
    prepare_dataset("folder", root, tmp_path / "whole", **options)
    stored = parse_example(manifest.load_manifest(tmp_path / "whole").split("train").read(0))
    assert stored["image/format"].decode() == (image_format or "png")
    image = Examples(tmp_path / "whole", "train")[0][0]
    assert np.abs(image.astype(int) - pillow_rgb(data)).max() <= (40 if image_format == "jpeg" else 0)


def test_instance_maps_are_turned_by_their_own_orientation(tmp_path):
    root = make_cityscapes(tmp_path / "city", train=1, val=1)
    ends = ("leftImg8bit", "labelIds", "instanceIds")
    image, label, instance = (next(root.glob(f"*/train/*/*_{end}.png")) for end in ends)
    image.write_bytes(saved(RGB, "PNG"))
    label.write_bytes(saved(IDS, "PNG"))
    instance.write_bytes(saved(np.rot90(DEEP[..., 0]), "PNG", 6))  # 6: to be turned clockwise
    prepare_dataset("cityscapes", root, tmp_path / "records", workers=1, progress=False)
    np.testing.assert_array_equal(Examples(tmp_path / "records", "train").scene(0)[2], DEEP[..., 0])
