import json
import pathlib

import keras
import numpy as np
import pytest
import tiny
from PIL import Image

import kseg
from kseg.data.augmentation import plan as augment
from kseg.data.pipeline import examples_tensorflow
from kseg.data.pipeline.examples import Examples
from kseg.data.records import manifest
from kseg.data.records.prepare import prepare_dataset
from kseg.settings import Augmentation, Resize

WILD = Augmentation(scale_min=0.5, scale_max=2.0, flip=True, brightness=0.1, contrast=0.2, saturation=0.2, hue=0.05)


@pytest.fixture
def data(records):
    return records.parent


def arrays(dataset):
    return [(np.asarray(image), np.asarray(label)) for image, label in dataset]


def read(data, name):
    folder = data / "source" / name.split("_")[0]
    return tuple(np.asarray(Image.open(folder / kind / f"{name}.png")) for kind in ("images", "labels"))


def test_evaluation_gives_every_image_once_in_name_order(data):
    got = arrays(kseg.load_dataset(data / "records", "val", batch_size=2))
    assert [len(image) for image, _ in got] == [2, 2, 1]  # nothing dropped, nothing padded
    images, labels = (np.concatenate(part) for part in zip(*got, strict=True))
    for i in range(5):
        image, label = read(data, f"val_{i}")
        assert np.array_equal(images[i], image) and np.array_equal(labels[i], label)
    assert images.dtype == labels.dtype == np.uint8


def test_training_passes_differ_and_repeat_exactly(data):
    def two_epochs():
        dataset = kseg.load_dataset(
            data / "records",
            "train",
            batch_size=3,
            height=32,
            width=64,
            training=True,
            seed=4,
            augmentation=WILD,
        )
        assert dataset.cardinality() == 2  # 7 images, whole batches of 3
        return arrays(dataset), arrays(dataset)

    first, second = two_epochs()
    again, _ = two_epochs()
    assert all(np.array_equal(a[i], b[i]) for a, b in zip(first, again, strict=True) for i in (0, 1))
    assert not np.array_equal(first[0][0], second[0][0])
    assert first[0][0].shape == (3, 32, 64, 3) and first[0][1].shape == (3, 32, 64)


def test_the_same_bytes_whatever_the_parallelism(data, monkeypatch):
    def batches(parallel):
        monkeypatch.setattr(examples_tensorflow.tf.data, "AUTOTUNE", parallel)
        options = {"batch_size": 2, "height": 32, "width": 32, "training": True, "augmentation": WILD}
        return arrays(kseg.load_dataset(data / "records", "train", **options))

    for one, many in zip(batches(1), batches(7), strict=True):
        assert np.array_equal(one[0], many[0]) and np.array_equal(one[1], many[1])


@pytest.mark.parametrize("crop", [None, (24, 40)], ids=["whole", "crop"])
@pytest.mark.parametrize("label_resize", ["nearest", "smooth"])
def test_tensorflow_and_numpy_execute_a_plan_alike(data, crop, label_resize):
    plan = augment.epoch_plan(7, 7, seed=5, epoch=0, augmentation=WILD)
    sources = (kind(data / "records", "train") for kind in (examples_tensorflow.RecordSource, Examples))
    (got,), (expected,) = (
        arrays(s.training_batches(lambda: [plan], 7, Resize(32, 64, crop, label_resize))) for s in sources
    )
    assert got[1].shape == (7, *(crop or (32, 64))) and np.array_equal(got[1], expected[1])
    # Pillow resizes uint8 in fixed point: a level or two apart after the colours
    assert np.abs(got[0].astype(int) - expected[0]).max() <= 3


def test_smooth_labels_are_raw_ids_mixed_before_the_label_set(tmp_path):
    """Raw ids 10 | 30 beside each other: smoothing makes ids between, of which only 20 (car) is a class."""
    folder = tmp_path / "source"
    label = np.full((8, 16), 10, np.uint8)
    label[:, 8:] = 30
    for split in ("train", "val"):
        for kind, array in (("images", np.zeros((8, 16, 3), np.uint8)), ("labels", label)):
            (folder / split / kind).mkdir(parents=True)
            Image.fromarray(array).save(folder / split / kind / f"{split}.png")
    classes = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in ((10, "road"), (20, "car"), (30, "sky"))]
    (folder / "classes.json").write_text(json.dumps({"classes": classes}))
    prepare_dataset("folder", folder, tmp_path / "records", workers=1, progress=False)
    source = examples_tensorflow.RecordSource(tmp_path / "records", "train")
    plan = augment.epoch_plan(1, 1, seed=0, epoch=0, augmentation=Augmentation())
    # 15 columns for 16: the middle one lies on the border, half 10 and half 30 are 20. 32 columns: the two at the
    # border lie a quarter of the way to the other side, 15 and 25, which no class has.
    for label_resize, width, middle in (("smooth", 15, [1]), ("smooth", 32, [254, 254]), ("nearest", 15, [2])):
        ((_, got),) = arrays(source.training_batches(lambda: [plan], 1, Resize(8, width, None, label_resize)))
        side = (width - len(middle)) // 2
        assert got[0, 3].tolist() == [0] * side + middle + [2] * side
    assert set(np.unique(arrays(source.batches())[0][1])) == {0, 2}  # only training labels are smoothed


def test_record_sizes_need_a_common_size(tmp_path):
    source = tiny.write_folder(tmp_path / "source", train=2, val=2)
    path = source / "val" / "images" / "val_1.png"
    for kind in ("images", "labels"):
        path = source / "val" / kind / "val_1.png"
        Image.open(path).crop((0, 0, 40, 32)).save(path)
    prepare_dataset("folder", source, tmp_path / "records", workers=1, progress=False)
    with pytest.raises(ValueError, match="val_0 .*cannot share a batch of 2"):
        kseg.load_dataset(tmp_path / "records", "val", batch_size=2)
    assert [image.shape[2] for image, _ in arrays(kseg.load_dataset(tmp_path / "records", "val"))] == [48, 40]
    resized = arrays(kseg.load_dataset(tmp_path / "records", "val", batch_size=2, height=16, width=24))
    assert resized[0][0].shape == (2, 16, 24, 3)


def test_a_corrupt_record_names_shard_and_position(data, tmp_path):
    folder = tmp_path / "records"
    folder.mkdir()
    for path in (data / "records").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    split = manifest.load_manifest(folder).split("val")
    shard = split.shards[split.shard[3]]
    offset = int(split.offset[3])
    content = bytearray(pathlib.Path(shard).read_bytes())
    content[offset + 40] ^= 1  # one bit of the payload
    pathlib.Path(shard).write_bytes(content)
    source = examples_tensorflow.RecordSource(folder, "val")
    expected = f"Record {split.position[3]} of shard .*{pathlib.Path(shard).name} is corrupt"
    with pytest.raises(ValueError, match=expected), source.readable_errors():
        arrays(source.batches())


def test_fit_takes_the_dataset_as_it_is(data):
    inputs = keras.Input((32, 48, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(keras.layers.Rescaling(1 / 255)(inputs)))
    model.compile("sgd", loss=kseg.losses.CrossEntropy(), metrics=[kseg.metrics.SegmentationScores(3)])
    train = kseg.load_dataset(data / "records", "train", batch_size=2, training=True, augmentation=WILD)
    history = model.fit(train, epochs=2, validation_data=kseg.load_dataset(data / "records", "val"), verbose=0)
    assert np.isfinite(history.history["val_mean_iou"]).all() and len(history.history["loss"]) == 2


def test_class_pixel_counts_follow_the_label_set(data):
    source = examples_tensorflow.RecordSource(data / "records", "train")
    labels = np.stack([read(data, f"train_{i}")[1] for i in range(7)])
    assert source.pixel_counts().tolist() == [int((labels == c).sum()) for c in range(3)]


def test_a_plan_reaches_tf_data_with_all_its_columns():
    """A new augmentation is a column of ROW; none may get lost, or change its type, on the way to `apply_row`."""
    rows = augment.epoch_plan(4, 4, 0, 0, Augmentation())[0]
    expected = {}
    for name in augment.ROW.names:
        expected[name] = examples_tensorflow.tf.TensorSpec((None, *rows[name].shape[1:]), rows[name].dtype)
    assert expected == examples_tensorflow._ROW_SIGNATURE
