import csv
import io

import numpy as np
import pytest
import tiny
from PIL import Image
from tiny import brightness_model

import kseg
from kseg.inference.logits import logits_at
from kseg.inference.predict_files import predict_files
from kseg.metrics.scores import Scores


def test_a_perfect_model_scores_one(records):
    scores = kseg.evaluate(brightness_model(), records)  # the labels are this rule; see tiny.write_folder
    assert scores.mean_iou == scores.pixel_accuracy == scores.f1 == 1
    assert scores.images == scores.expected_images == 5 and scores.classes == ("road", "car", "sky")
    assert scores.confusion_matrix.sum() == 5 * 30 * 48  # two rows of each label are void


def test_iterables_single_and_batched_agree_with_records(records):
    pairs = [tuple(np.asarray(part)[0] for part in batch) for batch in kseg.load_dataset(records, "val")]
    model = brightness_model((32, 64, 3))  # another size: images go there and back
    expected = kseg.evaluate(model, records).confusion_matrix
    assert 0 < np.trace(expected) < expected.sum()
    single = kseg.evaluate(model, pairs)
    batched = kseg.evaluate(model, kseg.load_dataset(records, "val", batch_size=2))
    assert np.array_equal(single.confusion_matrix, expected) and np.array_equal(batched.confusion_matrix, expected)
    assert single.classes == ("0", "1", "2")  # this model carries no names


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"batch_size": 2}, "batch_size is of a record folder, got batch_size=2 with pairs"),
        ({"split": "test"}, "split is of a record folder, got split='test' with pairs"),
        ({"label_set": "train_ids"}, "label_set is of a record folder, got label_set='train_ids' with pairs"),
        ({"label_space": "train_ids"}, "label_space is of a record folder, got label_space='train_ids' with pairs"),
    ],
)
def test_what_a_record_folder_takes_is_refused_with_pairs(option, message):
    pair = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    with pytest.raises(kseg.InputError, match=f"^{message}"):
        kseg.evaluate(brightness_model(), [pair], **option)


def test_a_bad_pair_is_named_by_its_number():
    image, label = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
    good = (image, label)
    for bad, message in (
        (image, "got ndarray for image 2 .counted from 0."),
        ((image, label[..., None]), r"got \(1, 4, 4, 3\) and \(1, 4, 4, 1\) from image 2 .counted from 0. on"),
        ((image / 255, label), "got float64 from image 2 .counted from 0. on"),
    ):
        with pytest.raises(kseg.InputError, match=message):
            kseg.evaluate(brightness_model(), [good, good, bad])


def test_a_label_of_another_shape_is_refused_and_one_that_was_not_made_smaller_is_not():
    image, label = np.zeros((8, 13, 3), np.uint8), np.zeros((8, 13), np.uint8)
    for wrong in (label.T, label[::2], label[:5], label[:, :6]):
        with pytest.raises(
            kseg.InputError, match=rf"got 13x8 and {wrong.shape[1]}x{wrong.shape[0]} for image 1 .*EXIF"
        ):
            kseg.evaluate(brightness_model(), [(image, label), (image, wrong)])
    for larger in (np.zeros((16, 26), np.uint8), np.zeros((16, 27), np.uint8)):  # 27 halved is 13.5
        assert kseg.evaluate(brightness_model(), [(image, larger)]).pixel_accuracy == 1
    large = np.zeros((50, 60, 3), np.uint8)  # one column more is a label that was cropped, not one of a larger image
    with pytest.raises(kseg.InputError, match="got 60x50 and 61x50 for image 0"):
        kseg.evaluate(brightness_model(), [(large, np.zeros((50, 61), np.uint8))])


def test_an_image_of_a_list_is_named_by_its_number():
    image = np.zeros((4, 4, 3), np.uint8)
    for bad in (b"no image", image[..., 0], image / 255, [[1, 2], [3]]):
        with pytest.raises(kseg.InputError, match=r"image 1 \(counted from 0\)"):
            kseg.predict(brightness_model(), [image, bad, image])
    for bad in (b"no image", image[..., 0], image / 255):
        with pytest.raises(kseg.InputError, match="the image"):
            kseg.predict(brightness_model(), bad)


def test_a_warning_points_to_the_line_that_called_kseg():
    image, label = np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 77, np.uint8)
    with pytest.warns(UserWarning, match="16 pixels have a label that is neither") as told:
        kseg.evaluate(brightness_model(), [(image, label)])
    assert [warning.filename for warning in told] == [__file__]


def test_labels_outside_the_classes_are_counted_not_dropped():
    image = np.zeros((4, 4, 3), np.uint8)
    label = np.array([[0, 0, 7, 255]] * 4, np.uint8)
    with pytest.warns(UserWarning, match="4 pixels have a label that is neither a training id of the model nor 255"):
        scores = kseg.evaluate(brightness_model(), [(image, label)])
    assert scores.out_of_range == 4 and scores.confusion_matrix.sum() == 8
    assert "4 pixels" in str(scores)


def test_every_image_must_come(records):
    from kseg.evaluation.standard_protocol import score_batches
    from kseg.inference.predictor import predictor

    pairs = list(kseg.load_dataset(records, "val"))
    with pytest.raises(ValueError, match="expected 5, got 4"):
        score_batches(predictor(brightness_model()), pairs[:4], ("a", "b", "c"), expected=5)
    with pytest.raises(ValueError, match="got 0"):
        kseg.evaluate(brightness_model(), [])


def test_a_model_of_free_size_works_at_the_size_that_it_carries(records):
    free = brightness_model(multiple=16)
    free.layers[1].size = (40, 72)  # no multiple of 16: resized, then padded to 48x80
    expected = kseg.evaluate(brightness_model((40, 72, 3)), records).confusion_matrix
    assert np.array_equal(kseg.evaluate(free, records).confusion_matrix, expected)
    assert not np.array_equal(kseg.evaluate(brightness_model(), records).confusion_matrix, expected)


def test_outputs_beyond_the_classes_are_false_negatives(records, tmp_path):
    """The rule of brightness_model with channels 1 and 5 exchanged: the model says 5 where car would be right."""
    facts = kseg.data.pipeline.load.open_split(records, "val").label_set.to_json()
    model = brightness_model(classes=7)
    kernel, bias = model.layers[2].get_weights()
    order = [0, 5, 2, 3, 4, 1, 6]
    model.layers[2].set_weights([kernel[..., order], bias[order]])
    with pytest.raises(ValueError, match="model has 7 classes"):  # without a label set every output is a class
        kseg.evaluate(model, records)
    model.layers[1].label_set = {name: facts[name] for name in ("name", "classes", "palette")}
    perfect = kseg.evaluate(brightness_model(), records).confusion_matrix
    expected = perfect.copy()
    expected[1, 3] = perfect[1, 1]  # the last column is outside the classes
    expected[1, 1] = 0
    kseg.export_saved_model(model, tmp_path / "saved_model")
    for form in (model, tmp_path / "saved_model"):
        assert np.array_equal(kseg.evaluate(form, records).confusion_matrix, expected)
    Image.fromarray(np.full((4, 4, 3), 120, np.uint8)).save(tmp_path / "image.png")  # 120: between 90 and 160
    (path,) = predict_files(model, [tmp_path / "image.png"], tmp_path / "labels")
    assert (np.asarray(Image.open(path)) == 5).all()
    assert (np.asarray(Image.open(tmp_path / "labels" / "color" / "image.png")) == 255).all()  # white: no class' colour


def test_classes_must_fit(records):
    with pytest.raises(ValueError, match="model has 4 classes, but label set train_ids .* has 3"):
        kseg.evaluate(brightness_model(classes=4), records)
    model = brightness_model(classes=4)
    names = ["road", "car", "sky", "bus"]
    for name, advice in (
        ("all_ids", "the model was trained on: all_ids"),
        ("train_ids", r"on others \(road, car, sky, .*of its classes"),
    ):
        model.layers[1].label_set = {"name": name, "classes": names, "palette": [[0, 0, 0]] * 4}
        with pytest.raises(ValueError, match=f"model has 4 classes, .*{advice}; or say in a class map"):
            kseg.evaluate(model, records)
    model = brightness_model()
    model.layers[1].label_set = {"name": "train_ids", "classes": ["road", "bus", "sky"], "palette": [[0, 0, 0]] * 3}
    with pytest.raises(ValueError, match="'bus' against 'car'"):
        kseg.evaluate(model, records)


def test_groups_are_scored_as_their_images_alone(records, tmp_path, call_script):
    """Blocks of two of the frames val_0 .. val_4: two of each of the first two, and the last alone."""
    model = brightness_model((32, 64, 3))  # images go to that size and back, so that not every pixel is right
    pairs = [tuple(np.asarray(part)[0] for part in batch) for batch in kseg.load_dataset(records, "val")]
    scores = kseg.evaluate(model, records, group_by="block:2", batch_size=2)
    assert scores.group_by == "block:2" and scores.split == "val"
    parts = {"val_0 to val_1": pairs[:2], "val_2 to val_3": pairs[2:4], "val_4 to val_4": pairs[4:]}
    assert list(scores.groups) == list(parts)
    for name, part in parts.items():
        alone = kseg.evaluate(model, part)
        assert scores.groups[name] == {"images": len(part)} | alone.values() and alone.pixel_accuracy < 1
    assert str(kseg.evaluate(model, records)) + "\n\nby block:2 (3)" == str(scores).partition("  images")[0].rstrip()
    scores.to_json(tmp_path / "scores.json")
    again = Scores.from_json(tmp_path / "scores.json")
    assert again.groups == scores.groups and str(again) == str(scores)
    model.save(tmp_path / "model.keras")
    flags = (f"--model={tmp_path}/model.keras", f"--data_dir={records}", f"--output={tmp_path}/own.json")
    code, out, error = call_script("evaluate", *flags, "--group_by=block:2", f"--report_dir={tmp_path}/report")
    assert code == 0 and "by block:2 (3)" in out and "3 groups: too few to say" in out and "groups.csv" in out, error
    assert Scores.from_json(tmp_path / "own.json").groups == scores.groups
    head, *rows = csv.reader(io.StringIO((tmp_path / "report" / "groups.csv").read_text()))
    assert head[:4] == ["group", "images", "mean_iou", "pixel_accuracy"] and [row[0] for row in rows] == list(parts)
    assert [float(row[2]) for row in rows] == [row["mean_iou"] for row in scores.groups.values()]


def test_groups_that_cannot_be_are_refused(records, call_script):
    model = brightness_model()
    with pytest.raises(kseg.InputError, match="pairs have no names"):
        kseg.evaluate(model, [(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8))], group_by="drive")
    with pytest.raises(kseg.InputError, match='group_by needs protocol "standard", got .fischer2021'):
        kseg.evaluate(model, records, protocol="fischer2021", group_by="drive")
    with pytest.raises(kseg.InputError, match="does not match 'val_0'"):
        kseg.evaluate(model, records, group_by=r"train_(\d)")
    code, _, error = call_script(
        "evaluate", "--model=m", f"--data_dir={records}", "--protocol=cityscapes", "--group_by=drive"
    )
    assert code == 2 and "--group_by needs --protocol=standard" in error


def test_unknown_protocol_and_missing_model(records):
    with pytest.raises(ValueError, match="one of standard, .*got 'official'"):
        kseg.evaluate(brightness_model(), records, protocol="official")
    with pytest.raises(FileNotFoundError, match="No model at nowhere"):
        kseg.evaluate("nowhere", records)
    with pytest.raises(ValueError, match="is a record folder: it holds images, and no model"):
        kseg.evaluate(records, records)


def test_free_size_models_pad_to_the_multiple_and_crop():
    image = np.random.default_rng(0).integers(0, 256, (1, 20, 33, 3), np.uint8)
    padded = brightness_model(multiple=16)
    expected = np.asarray(brightness_model()(image.astype(np.float32)))
    assert np.array_equal(np.asarray(logits_at(padded, image, 20, 33)), expected)  # 1x1: padding cannot show
    seen = []
    layer = padded.layers[1]
    original = layer.call
    layer.call = lambda x: (seen.append(tuple(x.shape)), original(x))[1]
    logits_at(padded, image, 20, 33)
    assert seen == [(1, 32, 48, 3)]


def test_predict_takes_arrays_paths_bytes_and_lists(tmp_path):
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((8, 12), (10, 6))]
    path = tmp_path / "image.png"
    Image.fromarray(images[0]).save(path)
    model = brightness_model()
    expected = [np.digitize(image.mean(-1), [90, 160]) for image in images]
    for image in (images[0], path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(images[0])):
        got = kseg.predict(model, image)
        assert got.dtype == np.uint8 and np.array_equal(got, expected[0])
    both = kseg.predict(model, images)
    assert [label.shape for label in both] == [(8, 12), (10, 6)] and np.array_equal(both[1], expected[1])


def test_predict_refuses_what_is_no_image(tmp_path):
    model = brightness_model()
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\) RGB, got float64 of shape \(4, 4, 3\)"):
        kseg.predict(model, np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="not a PNG, JPEG, WebP, TIFF or BMP"):
        kseg.predict(model, b"GIF89a")
    with pytest.raises(ValueError, match="a path or uint8 .* got NoneType for the image"):
        kseg.predict(model, None)


def test_pillows_image_is_turned_as_its_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:, :4] = 255  # the left third becomes the upper one
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    path, opened = tmp_path / "a.png", Image.open(tmp_path / "a.png")
    expected = kseg.predict(brightness_model(), path)
    assert expected.shape == (12, 8) and (expected[:4] == 2).all() and (expected[4:] == 0).all()
    np.testing.assert_array_equal(kseg.predict(brightness_model(), opened), expected)
    assert kseg.evaluate(brightness_model(), [(opened, expected)]).pixel_accuracy == 1


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Image and label files of the validation split, and the same as arrays."""
    folder = tiny.write_folder(tmp_path_factory.mktemp("files") / "source") / "val"
    paths = [(folder / "images" / f"val_{i}.png", folder / "labels" / f"val_{i}.png") for i in range(5)]
    return paths, [tuple(np.asarray(Image.open(path)) for path in pair) for pair in paths]


def test_pairs_of_paths_score_as_their_arrays(files):
    """The rule of the labels is the model's, so in each mix every pixel but the two void rows is right."""
    paths, arrays = files
    mixes = {
        "paths": paths,
        "text": [tuple(map(str, pair)) for pair in paths],
        "mixed": [(paths[i][i % 2], arrays[i][1]) if not i % 2 else (arrays[i][0], paths[i][1]) for i in range(5)],
        "lists": [list(pair) for pair in paths],
    }
    for name, pairs in mixes.items():
        scores = kseg.evaluate(brightness_model(), pairs)
        assert scores.pixel_accuracy == 1 and scores.images == 5, name
        assert scores.confusion_matrix.sum() == 5 * 30 * 48 and scores.out_of_range == 0, name
    scores = kseg.evaluate(brightness_model((32, 48, 3)), paths, protocol="fischer2021")
    assert scores.sensitivity == 1 and scores.images == 5


def test_a_label_file_holds_training_ids(files, tmp_path):
    """A dataset's own ids would score as nonsense: they are refused, Cityscapes' regular ids by their name too."""
    (image, _), *_ = files[0]
    ids = np.zeros((32, 48), np.uint8)
    ids[:2, :3] = 7
    Image.fromarray(ids).save(tmp_path / "label.png")
    pairs = [(image, tmp_path / "label.png")]
    with pytest.raises(kseg.InputError, match=r"label.png must hold training ids, 0 to \d+ and 255.*, but holds 7"):
        kseg.evaluate(brightness_model(), pairs)
    (tmp_path / "a_labelIds.png").write_bytes((tmp_path / "label.png").read_bytes())
    with pytest.raises(kseg.InputError, match=r"a_labelIds.png holds Cityscapes' regular ids"):
        kseg.evaluate(brightness_model(), [(image, tmp_path / "a_labelIds.png")])


def test_a_file_that_cannot_be_scored_is_named(files, tmp_path):
    (image, label), *_ = files[0]
    (tmp_path / "torn.png").write_bytes(image.read_bytes()[:100])
    for pair, name in (
        ((tmp_path / "torn.png", label), "torn.png"),
        ((image, tmp_path / "torn.png"), "torn.png"),
        ((image, image), image.name),  # an RGB picture is no label
        ((tmp_path / "none.png", label), "none.png"),
        ((image, tmp_path), str(tmp_path)),
    ):
        with pytest.raises(kseg.InputError, match=name):
            kseg.evaluate(brightness_model(), [pair])
