"""Folders of predicted label maps, and maps between classes: what is counted, and what is refused."""

import json
import re

import keras
import numpy as np
import pytest
import tiny
from outside_files import describe
from PIL import Image
from scenes import make_camvid, make_cityscapes

import kseg
from kseg.data.datasets import camvid, cityscapes
from kseg.data.pipeline.examples import Examples
from kseg.data.records.prepare import prepare_dataset
from kseg.inference.outside.class_map import NO_CLASS, ClassMap
from kseg.metrics.confusion import confusion_matrix

CITY = cityscapes.info()
TRAIN = CITY.label_set()


def prepared(name, source):
    prepare_dataset(name, source, source.parent / "records", shards=1, workers=1, progress=False)
    return source.parent / "records"


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """Cityscapes records whose labels hold all ids."""
    return prepared("cityscapes", make_cityscapes(tmp_path_factory.mktemp("city") / "source", val=3))


@pytest.fixture(scope="module")
def cam(tmp_path_factory):
    return prepared("camvid", make_camvid(tmp_path_factory.mktemp("cam") / "source"))


def write_maps(folder, data_dir, ids_of, split="val"):
    """NAME.png of each image of a split; ids_of: (number, raw label) -> ids uint8."""
    examples = Examples(data_dir, split)
    for i, name in enumerate(examples.split.names):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(ids_of(i, examples.raw(i)[1]).astype(np.uint8)).save(path)
    return folder


def shuffled(i, label):
    """The label with every third row replaced by the one above it."""
    ids = label.copy()
    ids[1::3] = ids[0::3][: len(ids[1::3])]
    return ids


def test_own_ids_are_scored_as_the_labels_are_read_and_void_is_a_miss(city, tmp_path):
    folder = write_maps(tmp_path / "maps", city, shuffled)
    examples = Examples(city, "val")
    expected = np.zeros((19, 20), np.int64)
    for i in range(3):
        raw = examples.raw(i)[1]
        guess = TRAIN.table[shuffled(i, raw)].astype(int)
        guess[guess == 255] = 19  # void where something else is: predicted outside of the classes
        expected += confusion_matrix(TRAIN.table[raw], guess, 19)[0]
    found = kseg.evaluate(folder, city)
    np.testing.assert_array_equal(found.confusion_matrix, expected)
    assert expected[:, 19].sum() > 0


def test_training_ids_are_taken_where_they_are_said_and_asked_for_where_they_may_be(city, cam, tmp_path):
    folder = write_maps(tmp_path / "maps", city, lambda i, raw: TRAIN.table[raw])
    with pytest.raises(kseg.InputError, match=r'Write ids = "own" or ids = "training" into .*maps.toml, beside it'):
        kseg.evaluate(folder, city)
    describe(folder, 'ids = "training"')
    assert kseg.evaluate(folder, city).mean_iou == 1.0
    describe(folder, 'ids = "own"')
    assert kseg.evaluate(folder, city).mean_iou < 0.1
    # CamVid's own ids are its training ids: there is nothing to ask.
    own = write_maps(tmp_path / "cam", cam, lambda i, raw: raw)
    assert kseg.evaluate(own, cam).mean_iou == 1.0


def test_what_predict_writes_of_a_split_is_a_contestant(records, tmp_path):
    from kseg.inference.predict_files import write_split_label_maps

    model = tiny.brightness_model(multiple=16)
    model.layers[1].label_set = tiny.LABELS
    write_split_label_maps(model, records, "val", tmp_path)
    assert kseg.evaluate(tmp_path / "val", records).mean_iou == 1.0


@pytest.mark.parametrize("ids", ["dataset", "train"])
def test_what_predict_writes_says_itself_which_ids_it_holds(ids, city, tmp_path):
    """Road, sidewalk and building have regular ids 7, 8, 11; 0, 1, 2 would be other regular ids. Nothing is asked."""
    from kseg.export.exported_facts import carried
    from kseg.inference.label_map_files import Wanted
    from kseg.inference.predict_files import write_split_label_maps

    model = tiny.brightness_model(classes=19, multiple=16)
    model.layers[1].label_set = carried(Examples(city, "train"))
    paths = write_split_label_maps(model, city, "val", tmp_path, wanted=Wanted(ids=ids))
    found = set(np.unique([np.asarray(Image.open(path)) for path in paths]).tolist())
    assert len(found) > 1 and found <= {"dataset": {7, 8, 11}, "train": {0, 1, 2}}[ids]
    expected = kseg.evaluate(model, city).confusion_matrix
    np.testing.assert_array_equal(kseg.evaluate(tmp_path / "val", city).confusion_matrix, expected)
    if ids == "train":
        describe(tmp_path / "val", 'ids = "own"')  # a description wins
        assert kseg.evaluate(tmp_path / "val", city).pixel_accuracy == 0


def spoil(folder, name, do):
    path = folder / name
    do(path)


PROBLEMS = [
    (lambda f: (f / "val_1.png").unlink(), r"1 of 2 images have none: val_1.png"),
    (lambda f: (f / "val_7.png").write_bytes((f / "val_0.png").read_bytes()), r"1 file of no image: val_7.png"),
    (lambda f: (f / "notes.txt").write_text("x"), r"and not PNG files alone \(it holds notes.txt\): it is no model"),
    (lambda f: Image.new("L", (24, 17)).save(f / "val_0.png"), r"1 label map of another size: .*\(24x17, not 24x16\)"),
    (lambda f: (f / "val_0.png").write_bytes((f / "val_0.png").read_bytes()[:60]), "cannot be scored:\n.*val_0.png"),
    (lambda f: Image.new("L", (24, 16), 12).save(f / "val_0.png"), r"ids that are not among .*: 12 \(.*val_0.png\)"),
    (lambda f: Image.new("RGB", (24, 16), (1, 2, 3)).save(f / "val_0.png"), "val_0.png: labels must be 8-bit ids"),
]


@pytest.mark.parametrize(("spoil", "message"), PROBLEMS)
def test_files_that_do_not_fit_are_refused(spoil, message, cam, tmp_path):
    folder = write_maps(tmp_path / "maps", cam, lambda i, raw: raw)
    spoil(folder)
    with pytest.raises(kseg.InputError, match=message):
        kseg.evaluate(folder, cam)


def test_all_problems_are_named_at_once(cam, tmp_path):
    folder = write_maps(tmp_path / "maps", cam, lambda i, raw: raw)
    Image.new("L", (24, 17)).save(folder / "val_0.png")
    Image.new("L", (24, 16), 99).save(folder / "val_1.png")
    with pytest.raises(kseg.InputError, match=r"another size(.|\n)*99 \("):
        kseg.evaluate(folder, cam)


def test_a_folder_of_maps_predicts_nothing_else(cam, tmp_path):
    folder = write_maps(tmp_path / "maps", cam, lambda i, raw: raw)
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(kseg.InputError, match="has predictions of its own images alone"):
        kseg.predict(folder, image)
    with pytest.raises(kseg.InputError, match="must be scored on a record folder"):
        kseg.evaluate(folder, [(image, np.zeros((4, 4), np.uint8))])
    with pytest.raises(kseg.InputError, match="needs the network itself"):
        kseg.evaluate(folder, cam, protocol="fischer2021")


MAP = {
    **{"road": "Road", "sidewalk": "Pavement", "building": "Building", "wall": "Building", "fence": "Fence"},
    **{"pole": "Pole", "traffic sign": "SignSymbol", "vegetation": "Tree", "terrain": "Tree", "sky": "Sky"},
    **{"person": "Pedestrian", "rider": "Bicyclist", "car": "Car", "truck": "", "bicycle": "Bicyclist"},
}


def expected_of(cam, ids, names):
    """The confusion matrix of ids under MAP, by hand."""
    classes = camvid.info().label_set().classes
    examples = Examples(cam, "val")
    matrix = np.zeros((11, 12), np.int64)
    for i, guess in enumerate(ids):
        joined = np.full(guess.shape, 11)
        for number, name in names.items():
            if MAP.get(name):
                joined[guess == number] = classes.index(MAP[name])
        matrix += confusion_matrix(examples[i][1], joined, 11)[0]
    return matrix


@pytest.mark.parametrize("space", ["own", "training"])
def test_label_maps_of_other_classes_are_joined_by_a_map(space, cam, tmp_path, call_script):
    """Cityscapes' ids on CamVid: those without a class in CamVid count as wrong, and a line says so."""
    names = dict(enumerate(TRAIN.classes)) if space == "training" else {i: CITY.id_names[i] for i in range(34)}
    random = np.random.default_rng(1)
    ids = [random.choice(list(names), (16, 24)) for _ in range(2)]
    folder = write_maps(tmp_path / "maps", cam, lambda i, raw: ids[i])
    describe(folder, f'classes = "cityscapes"\nids = "{space}"')
    path = tmp_path / "map.json"
    path.write_text(json.dumps(MAP))
    found = kseg.evaluate(folder, cam, class_map=path)
    np.testing.assert_array_equal(found.confusion_matrix, expected_of(cam, ids, names))
    # Without the map the classes differ.
    with pytest.raises(kseg.InputError, match="Say by a map which class is which"):
        kseg.evaluate(folder, cam)
    code, out, _ = call_script("evaluate", f"--model={folder}", f"--data_dir={cam}", f"--map={path}")
    assert code == 0 and f"mean IoU {found.mean_iou:.4f}" in out
    # In the description, as a table or a file, it is the same; twice is refused.
    describe(folder, f'classes = "cityscapes"\nids = "{space}"\nmap = "map.json"')
    assert kseg.evaluate(folder, cam).mean_iou == found.mean_iou
    with pytest.raises(kseg.InputError, match="there is one already"):
        kseg.evaluate(folder, cam, class_map=path)


def test_a_model_of_ksegs_is_joined_by_a_map_too(records, cam, tmp_path):
    """Its winning class becomes the data's: tiny's road, car and sky on CamVid."""
    model = tiny.brightness_model()
    model.layers[1].label_set = tiny.LABELS
    path = tmp_path / "tiny.keras"
    model.save(path)
    table = np.array([3, 8, 0, 11])
    examples = Examples(cam, "val")
    expected = sum(
        confusion_matrix(truth, table[kseg.predict(model, image)], 11)[0]
        for image, truth in (examples[i] for i in range(2))
    )
    joined = {"road": "Road", "car": "Car", "sky": "Sky"}
    for name in (model, path):
        found = kseg.evaluate(name, cam, class_map=joined)
        np.testing.assert_array_equal(found.confusion_matrix, expected)
    describe(path, f"map = {{{', '.join(f'{a} = {json.dumps(b)}' for a, b in joined.items())}}}")
    np.testing.assert_array_equal(kseg.evaluate(path, cam).confusion_matrix, expected)
    with pytest.raises(kseg.InputError, match="The model has 3 classes, but label set train_ids of .* has 11"):
        kseg.evaluate(model, cam)


CAMVID = camvid.info().label_set()


@pytest.mark.parametrize(
    ("pairs", "names", "message"),
    [
        ({"raod": "Road"}, {0: "road"}, "maps 'raod', which is no class of the contestant. It has road"),
        ({"road": "road"}, {0: "road"}, "maps road to 'road', which is no class of label set train_ids"),
        ({"road": "Road", "0": "Sky"}, {0: "road"}, "names the class 0 twice"),
        ({"256": "Road"}, None, "ids of 0..255, for its classes have no names"),
        ({"road": "Road"}, None, "ids of 0..255"),
        ({"1": "Road"}, {0: "road"}, "maps '1', which is no class"),
    ],
)
def test_a_map_that_cannot_be_is_refused(pairs, names, message):
    with pytest.raises(kseg.InputError, match=message):
        ClassMap.of(pairs, "The map").ids(names, CAMVID)


@pytest.mark.parametrize(
    ("table", "got"),
    [
        ({}, "nothing"),
        ({"wall": "Building", "road": 3}, "road = 3"),
        ({"road": ["Road"]}, "road = ['Road']"),
        ({"road": {"a": "b"}}, "road = {'a': 'b'}"),
        ({"classes": ["x"] * 1000}, r"classes = \['x', 'x', .* \.\.\."),
    ],
)
def test_a_map_is_a_table_of_names(table, got):
    with pytest.raises(kseg.InputError, match="must map classes of the contestant") as error:
        ClassMap.of(table, "The map")
    assert re.search(rf"got {got if '.*' in got else re.escape(got)}\.$", str(error.value))
    assert len(str(error.value)) < 300


def test_a_map_says_what_counts_as_wrong_and_what_nothing_becomes(caplog):
    with caplog.at_level("INFO", "kseg"):
        table = ClassMap.of({"road": "Road", "tunnel": ""}, "M").ids({3: "road", 4: "tunnel", 9: "moon"}, CAMVID)
    assert table[3] == 3 and (np.delete(table, 3) == NO_CLASS).all()
    assert "M: predicting tunnel, moon counts as wrong (1 of these classes the map does not name)." in caplog.text
    assert "M: no class becomes Sky, Building, Pole, Pavement, Tree, SignSymbol, Fence, Car and 2 more" in caplog.text


def test_maps_of_wrong_files_are_refused(tmp_path):
    for name, text, message in (
        ("a.txt", "{}", "must be a .toml or .json file"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[1]", "must hold a table"),
        ("a.json", '{"road": "Road", "road": "Car"}', 'the key "road" is there twice'),
        ("b.toml", "x", "is not TOML"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(kseg.InputError, match=message):
            ClassMap.read(tmp_path / name)


def test_contestants_of_every_kind_are_compared(records, tmp_path):
    """A Keras model, an ONNX file and label maps of one rule: all right, everywhere."""
    from outside_files import write_onnx

    maps = write_maps(tmp_path / "maps", records, lambda i, raw: raw)
    onnx = write_onnx(tmp_path / "x.onnx")
    describe(onnx, 'classes = ["Strasse", "Auto", "Himmel"]\nchannels = "RGB"\nrange = "0..255"\n'
             'map = {Strasse = "road", Auto = "car", Himmel = "sky"}')  # fmt: skip
    found = kseg.compare({"keras": tiny.brightness_model(), "onnx": onnx, "maps": maps}, records, tmp_path / "report")
    assert found.names == ("keras", "onnx", "maps")
    assert [scores.mean_iou for scores in found.scores] == [1.0, 1.0, 1.0]
    assert isinstance(tiny.brightness_model(), keras.Model) and re.match("keras", found.names[0])
