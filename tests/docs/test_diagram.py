"""docs.diagram: that a picture shows what the model connects, and that the committed ones are up to date."""

import re
import xml.etree.ElementTree as ET

import keras
import pytest

import kseg
from docs.diagram import graph
from docs.diagram.svg import draw_architecture


def _draw(model, folder):
    path = folder / "model.svg"
    draw_architecture(model, path)
    assert [file.name for file in folder.iterdir()] == ["model.svg"]  # nothing temporary stays
    return ET.parse(path).getroot()


def _all(root, name):
    """Elements of a class."""
    return [element for element in root.iter() if element.get("class") == name]


def _ends(root, kind):
    """(from, to, resolution) of all edges of a kind."""
    return [tuple(edge.get(f"data-{key}") for key in ("from", "to", "resolution")) for edge in _all(root, kind)]


def _number(element, *names):
    return [float(element.get(name)) for name in names]


@pytest.fixture(scope="module")
def r2unet(tmp_path_factory):
    return _draw(kseg.build_model("r2unet", (32, 48, 3), 5, base_filters=4), tmp_path_factory.mktemp("r2unet"))


@pytest.fixture(scope="module")
def segnet_aspp(tmp_path_factory):
    return _draw(kseg.build_model("segnet_aspp", (32, 64, 3), 5, base_filters=4), tmp_path_factory.mktemp("aspp"))


def test_r2unet_joins_each_level_across_and_around(r2unet):
    # The sum at the end of each encoder level meets what comes up at that level's resolution.
    expected = [(f"encoder{level}_residual", f"decoder{level}_skip", f"1/{2 ** (level - 1)}") for level in range(1, 5)]
    assert sorted(_ends(r2unet, "skip")) == expected
    blocks = [f"encoder{level}" for level in range(1, 6)] + [f"decoder{level}" for level in range(1, 5)]
    around = {(source, target) for source, target, _ in _ends(r2unet, "residual")}
    assert around == {(f"{block}_projection", f"{block}_residual") for block in blocks}
    assert len(_all(r2unet, "add")) == 9 and len(_all(r2unet, "concat")) == 4 and not _all(r2unet, "indices")


def test_r2unet_shows_one_kernel_applied_three_times(r2unet):
    boxes = _all(r2unet, "recurrent")
    assert len(boxes) == 2 * 9 and {box.get("data-applications") for box in boxes} == {"3"}
    marks = [text.text for box in boxes for text in box if text.get("class") == "applications"]
    assert marks == ["×3"] * 18
    channels = {box.get("data-layer"): (box.get("data-channels"), box.get("data-resolution")) for box in boxes}
    for level in range(1, 6):
        assert channels[f"encoder{level}_conv2"] == (str(4 * 2 ** (level - 1)), f"1/{2 ** (level - 1)}")


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("runet", {"steps": 0}, {}),
        ("r2unet_fischer2021", {"steps": 3, "norm": "shared"}, {"encoder1_conv1": "4", "encoder1_conv2": "4"}),
        # the forward kernel is applied once; the other one once a step
        ("runet", {"recurrence": "separate"}, {"encoder1_conv1_recurrent": "2", "encoder1_conv2_recurrent": "2"}),
    ],
)
def test_recurrence_is_read_from_the_model(model, options, expected, tmp_path):
    root = _draw(kseg.build_model(model, (8, 8, 3), 2, base_filters=2, depth=1, **options), tmp_path)
    assert {box.get("data-layer"): box.get("data-applications") for box in _all(root, "recurrent")} == expected


def test_segnet_aspp_joins_each_pooling_to_its_unpooling(segnet_aspp):
    # Positions found at 1/2 are used to make the map at 1/1, and so on.
    expected = [(f"block{b}_pool", f"decoder{b}_unpool", f"1/{2 ** (b - 1)}") for b in range(1, 6)]
    assert sorted(_ends(segnet_aspp, "indices")) == expected
    assert all(edge.get("stroke-dasharray") for edge in _all(segnet_aspp, "indices"))
    assert not _all(segnet_aspp, "skip") and len(_all(segnet_aspp, "resolution")) == 6


def test_segnet_aspp_branches_stand_side_by_side_with_their_rates(segnet_aspp):
    branches = _all(segnet_aspp, "atrous")
    assert [box.find("{*}text").text for box in branches] == ["3×3 rate 6", "3×3 rate 12", "3×3 rate 18"]
    assert {box.get("data-resolution") for box in branches} == {"1/1"}
    middles = {x + width / 2 for x, width in (_number(box.find("{*}rect"), "x", "width") for box in branches)}
    assert max(middles) - min(middles) <= 0.1  # numbers are rounded to tenths
    into = [source for source, target, _ in _ends(segnet_aspp, "flow") if target == "aspp_projection"]
    assert len(into) == 5 and len(set(into)) == 5


def _rectangles(root):
    """{layer: (left, top, right, bottom)} of what is drawn as a box."""
    found = {}
    for group in root.iter():
        box = group.find("{*}rect") if group.get("data-layer") else None
        if box is not None:
            x, y, width, height = _number(box, "x", "y", "width", "height")
            found[group.get("data-layer")] = x, y, x + width, y + height
    return found


@pytest.mark.parametrize("name", list(kseg.MODELS))
def test_every_model_is_drawn_without_boxes_on_each_other(name, tmp_path):
    model = kseg.build_model(name, (64, 64, 3), 3, base_filters=4)
    root = _draw(model, tmp_path)
    width, height = _number(root, "width", "height")
    boxes = _rectangles(root)
    assert {layer.name for layer in model.layers if "Conv" in type(layer).__name__} <= set(boxes)
    for layer, (left, top, right, bottom) in boxes.items():
        assert 0 < left < right < width and 0 < top < bottom < height
        for other, (left2, top2, right2, bottom2) in boxes.items():
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart or layer == other, f"{layer} on {other}"
    background = root.find("{*}rect")
    assert _number(background, "width", "height") == [width, height] and background.get("fill") == "#ffffff"


def test_units_merge_what_belongs_to_a_convolution():
    model = kseg.build_model("unet", (16, 16, 3), 2, base_filters=2, depth=2)
    units, edges = graph.read_graph(model)
    (unit,) = [unit for unit in units if unit.name == "encoder1_conv1"]
    assert unit.followers == {"BatchNormalization", "ReLU"} and unit.shape == (16, 16, 2)
    assert [edge.source.name for edge in edges if edge.target is unit] == ["image"]  # Preprocess is of the image
    assert [unit.name for unit in units if unit.is_output] == ["logits"]


def test_names_are_escaped_and_other_layers_are_named(tmp_path):
    image = keras.Input((8, 8, 3), name="a<b")
    x = keras.layers.Reshape((4, 4, 12), name="fold&pack")(image)
    root = _draw(keras.Model(image, keras.layers.Conv2D(2, 1, name="c")(x), name="x<y"), tmp_path)
    (other,) = _all(root, "other")
    assert other.get("data-layer") == other.find("{*}text").text == "fold&pack"
    assert root.find("{*}g/{*}text").text == "x<y"  # the title


def test_what_cannot_be_drawn_is_said(tmp_path):
    free = kseg.build_model("unet", (None, None, 3), 2, base_filters=2)
    with pytest.raises(ValueError, match="fixed size"):
        draw_architecture(free, tmp_path / "free.svg")
    sequence = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)])
    with pytest.raises(ValueError, match="Only a functional model can be drawn, got Sequential"):
        draw_architecture(sequence, tmp_path / "sequence.svg")
    assert not list(tmp_path.iterdir())


def test_committed_pictures_are_what_their_commands_draw_now(root, tmp_path, monkeypatch):
    text = (root / "docs" / "reference" / "architectures.md").read_text(encoding="utf-8")
    commands = re.findall(r'^python -c "(.*)"$', text, re.MULTILINE)
    pictures = re.findall(r"\]\(\.\./pictures/(\w+\.svg)\)", text)
    assert len(commands) == len(pictures) == 5
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for command in commands:
        exec(command, {})
    for picture in pictures:
        drawn, committed = (folder / "docs" / "pictures" / picture for folder in (tmp_path, root))
        assert drawn.read_bytes() == committed.read_bytes(), f"docs/pictures/{picture} is old: run the line under it"
    for name, millions in re.findall(r"/(\w+)\.svg\)(?s:.*?)^([\d.]+) million parameters", text, re.MULTILINE):
        drawn = (tmp_path / "docs" / "pictures" / f"{name}.svg").read_text("utf-8")
        assert f"{millions} million trainable parameters" in drawn
