"""Objects found and swallowed: expectations counted by hand on small maps, components by flood fill."""

import json
import math

import numpy as np
import pytest

from kseg.metrics.objects import OUTSIDE, ObjectScores, image_objects

CLASSES = ("road", "car", "pole")


def scene():
    """(truth, instances), 20 x 30: road, two cars of 5 x 8 (ids 26001, 26002), one of 2 x 2, a group, poles, void."""
    truth = np.zeros((20, 30), np.uint8)
    instances = np.full((20, 30), 7, np.uint16)
    for number, box in enumerate(
        ((slice(0, 5), slice(0, 8)), (slice(0, 5), slice(8, 16)), (slice(10, 12), slice(0, 2)))
    ):
        truth[box] = 1  # the first two touch: one region, two instances
        instances[box] = 26001 + number
    truth[0:5, 22:30] = 1
    instances[0:5, 22:30] = 26  # a group of cars has no number of its own
    truth[8:18, 10] = 2
    instances[8:18, 10] = 17
    truth[8:18, 20] = 2
    instances[8:18, 20] = 17
    truth[19] = 255
    instances[19] = 0
    return truth, instances


def flood(labels):
    """Regions by flood fill, numbered by their first pixels."""
    number = np.full(labels.shape, -1)
    count = 0
    for start in np.ndindex(labels.shape):
        if number[start] >= 0:
            continue
        number[start] = count
        todo = [start]
        while todo:
            y, x = todo.pop()
            for v in range(max(0, y - 1), min(len(labels), y + 2)):
                for u in range(max(0, x - 1), min(labels.shape[1], x + 2)):
                    if number[v, u] < 0 and labels[v, u] == labels[y, x]:
                        number[v, u] = count
                        todo.append((v, u))
        count += 1
    return number


def regions(labels, valid):
    """Regions of the classes, renumbered by their first pixels; -1 for void."""
    number, pixels = image_objects(labels, valid)
    np.testing.assert_array_equal(pixels, valid)
    number = np.where(valid, number, -1)
    names, first, rank = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(np.where(names < 0, -1, first)))  # void, where there is any, comes first
    return order[rank].reshape(labels.shape) - (names[0] < 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (23, 31)])
def test_components_equal_flood_fill(shape):
    rng = np.random.default_rng(0)
    for classes in (1, 2, 3, 12):
        labels = rng.integers(0, classes, shape).astype(np.uint8)
        np.testing.assert_array_equal(regions(labels, np.ones(shape, bool)), flood(labels))


def test_void_is_no_object_and_parts_what_it_lies_between():
    labels = np.array([[0, 3, 0, 0], [0, 3, 1, 3]], np.uint8)  # 3 of three classes: void
    assert regions(labels, labels < 3).tolist() == [[0, -1, 1, 1], [0, -1, 2, -1]]


def test_instances_found_and_swallowed_by_hand():
    truth, instances = scene()
    prediction = truth.copy()
    prediction[0:5, 0:4] = 0  # the first car: 20 of 40 pixels left, just found
    prediction[0:5, 8:13] = 0  # the second: 15 of 40 left, 25 road
    prediction[10:12, 0:2] = 2  # the small one is a pole
    prediction[8:18, 20] = [2] * 4 + [0] * 3 + [1] * 2 + [9]  # a pole: 4 of 10 left; 3 road, 2 car, 1 no class
    scores = ObjectScores(CLASSES, size_edges=(5, 40))
    scores.update(truth, prediction, instances)
    found = scores.result()
    car, pole, road = (found["per_class"][name] for name in ("car", "pole", "road"))
    assert (car["objects_from"], car["objects"], car["found"]) == ("instances", 3, 1 / 3)  # the group is none of them
    assert car["swallowed_by"] == {"road": 1, "pole": 1}
    assert [row["objects"] for row in car["by_size"].values()] == [1, 0, 2]  # 4 pixels; 40 is in the larger bin
    assert [row["found"] for row in car["by_size"].values()] == pytest.approx([0, math.nan, 0.5], nan_ok=True)
    assert list(car["by_size"]) == ["< 5", "5 to < 40", ">= 40"]
    assert (pole["objects_from"], pole["objects"], pole["found"]) == ("components", 2, 0.5)
    assert pole["swallowed_by"] == {"road": 1}
    assert (road["objects"], road["found"], road["swallowed_by"]) == (1, 1, {})
    assert (found["objects"], found["found"]) == (6, 3 / 6)
    assert found["mean_found"] == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    # Half of the first car's pixels are enough, a hair more are not.
    strict = ObjectScores(CLASSES, overlap=0.51)
    strict.update(truth, prediction, instances)
    assert strict.result()["per_class"]["car"]["found"] == 0


def test_without_instances_the_regions_are_the_objects():
    truth, _ = scene()
    prediction = np.where(truth == 1, 0, truth)
    scores = ObjectScores(CLASSES)
    scores.update(truth, prediction)
    car = scores.result()["per_class"]["car"]
    # The two cars that touch (80 pixels), the small one, the group (40).
    assert (car["objects_from"], car["objects"], car["found"]) == ("components", 3, 0)
    assert car["swallowed_by"] == {"road": 3} and car["by_size"]["< 100"]["objects"] == 3


def test_void_pixels_are_of_no_object():
    truth, instances = scene()
    truth[0:3, 0:8] = 255  # of the first car 16 pixels are left, 8 of them predicted as car
    prediction = np.zeros_like(truth)
    prediction[3:5, 0:4] = 1
    scores = ObjectScores(CLASSES)
    scores.update(truth, prediction, instances)
    assert scores.result()["per_class"]["car"]["found"] == 1 / 3
    truth[instances == 26001] = 255
    scores = ObjectScores(CLASSES)
    scores.update(truth, prediction, instances)
    assert scores.result()["per_class"]["car"]["objects"] == 2
    empty = ObjectScores(CLASSES)
    empty.update(np.full((4, 4), 255), np.zeros((4, 4), int))
    assert empty.result()["objects"] == 0 and math.isnan(empty.result()["mean_found"])


def test_what_swallows_is_the_most_frequent_other_class_of_equals_the_first():
    truth = np.array([[2] * 10], np.uint8)
    for prediction, expected in (
        ([2] * 4 + [1] * 3 + [0] * 3, "road"),
        ([2] * 4 + [1] * 4 + [0] * 2, "car"),
        ([200] * 9 + [1], "outside the classes"),
    ):
        scores = ObjectScores(CLASSES)
        scores.update(truth, np.array([prediction]))
        assert scores.result()["per_class"]["pole"]["swallowed_by"] == {expected: 1}


def test_errors_by_distance_by_hand():
    # One row, the boundary between columns 9 and 10: distances 9..0, 0..9. Wrong: columns 10 and 11 (0 and 1 away),
    # 15 (5 away) and 0 (9 away). Bins up to 0: 2 pixels, 1 wrong; to 2: 4, 1; to 4: 4, 0; beyond: 10, 2.
    truth = np.array([[0] * 10 + [1] * 10], np.uint8)
    prediction = truth.copy()
    prediction[0, [10, 11, 15, 0]] ^= 1
    scores = ObjectScores(("a", "b"), distance_edges=(0, 2, 4))
    scores.update(truth, prediction)
    errors = scores.result()["error_by_distance"]
    assert list(errors) == ["<= 0", "> 0 to 2", "> 2 to 4", "> 4"]
    assert [row["pixels"] for row in errors.values()] == [2, 4, 4, 10]
    assert [row["error_rate"] for row in errors.values()] == [1 / 2, 1 / 4, 0, 2 / 10]
    # A void column beside the boundary: columns 9 and 11 do not touch, so there is none and all is in the last bin.
    truth[0, 10] = 255
    scores = ObjectScores(("a", "b"), distance_edges=(0, 2, 4))
    scores.update(truth, prediction)
    assert [row["pixels"] for row in scores.result()["error_by_distance"].values()] == [0, 0, 0, 19]


def test_images_add_up():
    truth, instances = scene()
    prediction = np.zeros_like(truth)
    twice = ObjectScores(CLASSES)
    once = ObjectScores(CLASSES)
    once.update(truth, prediction, instances)
    for pixels in (prediction, truth):
        twice.update(truth, pixels, instances)
    one = once.result()
    two = twice.result()
    assert (two["images"], two["objects"]) == (2, 2 * one["objects"])
    assert two["per_class"]["car"]["found"] == 0.5 and two["per_class"]["car"]["swallowed_by"] == {"road": 3}
    # The second image, without cars, has no instances: cars stay counted by instances.
    twice.update(truth * (truth != 1), prediction, np.full_like(instances, 7))
    assert twice.result()["per_class"]["car"]["objects"] == 6


def test_each_image_gives_its_own_counts():
    truth, instances = scene()
    prediction = np.zeros_like(truth)
    with_distances = ObjectScores(CLASSES)
    scores = ObjectScores(CLASSES, distance_edges=None)
    each = np.stack([scores.update(truth, pixels, instances) for pixels in (prediction, truth)])
    for pixels in (prediction, truth):
        with_distances.update(truth, pixels, instances)
    chosen = scores.of_chosen_source(each)  # (images, all and found, classes, sizes)
    result = with_distances.result()
    for c, row in enumerate(result["per_class"].values()):
        objects, found = chosen[:, :, c].sum(axis=(0, 2))
        assert objects == row["objects"]
        assert found == pytest.approx(row["found"] * objects if objects else 0)
        swallowed = dict(zip((*CLASSES, OUTSIDE), scores.swallowed()[c].tolist(), strict=True))
        assert {into: n for into, n in swallowed.items() if n} == row["swallowed_by"]
    assert (chosen[1, 0] == chosen[1, 1]).all()  # the second image is predicted rightly: all objects found
    assert (chosen[0, 0] == chosen[1, 0]).all() and chosen[0, 1].sum() < chosen[0, 0].sum()
    assert scores.result() == {**result, "error_by_distance": {}}


def test_table_and_json(tmp_path):
    truth, instances = scene()
    scores = ObjectScores((*CLASSES, "traffic light"))
    scores.update(truth, np.where(truth == 2, 0, truth), instances)
    scores.to_json(tmp_path / "objects.json")
    table = json.loads((tmp_path / "objects.json").read_text(), parse_constant=pytest.fail)
    assert table["per_class"]["traffic light"]["found"] is None and table["overlap"] == 0.5
    assert table["per_class"]["pole"]["swallowed_by"] == {"road": 2}
    lines = str(scores).splitlines()
    assert lines[0].split()[:2] == ["found", "all"] and ">= 10000 px" in lines[0]
    (pole,) = [line for line in lines if line.startswith("pole")]
    assert "0.000 of 2" in pole and pole.endswith("components  road (2)")
    assert "at least 50 % of the pixels" in lines[-2] and "<= 0: " in lines[-1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ObjectScores(("a", "a")), "must be different"),
        (lambda: ObjectScores(CLASSES, overlap=0), "overlap must be above 0 and at most 1, got 0"),
        (lambda: ObjectScores(CLASSES, size_edges=(100, 10)), "size_edges must be rising numbers of at least 1"),
        (lambda: ObjectScores(CLASSES).update(scene()[0], scene()[0][:3]), "of one size"),
        (lambda: ObjectScores(CLASSES).update(scene()[0], scene()[0], scene()[1][:3]), r"\(20, 30\), got uint16"),
    ],
)
def test_bad_input_gets_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_instance_maps_for_all_images_or_for_none():
    truth, instances = scene()
    scores = ObjectScores(CLASSES)
    scores.update(truth, truth)
    with pytest.raises(ValueError, match="one for all or for none"):
        scores.update(truth, truth, instances)
