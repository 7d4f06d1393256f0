"""Ids, colours and label sets of the datasets."""

import subprocess
import sys

import numpy as np
import pytest

from kseg.data.datasets import camvid, cityscapes
from kseg.data.labels import IGNORE_LABEL, INVALID_LABEL, DatasetInfo, LabelSet, label_set_of


def test_cityscapes_training_ids_are_the_official_ones():
    # Cordts et al. 2016: train ids 0..18 are these ids in this order, every other id of 0..33 is void.
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    label_set = cityscapes.info().label_set()
    assert label_set.table[ids].tolist() == list(range(19))
    rest = [i for i in range(34) if i not in ids] + [255]
    assert set(label_set.table[rest].tolist()) == {IGNORE_LABEL}
    assert set(label_set.table[34:255].tolist()) == {INVALID_LABEL}
    assert label_set.classes[0] == "road" and label_set.classes[18] == "bicycle"
    assert label_set.palette[0] == (128, 64, 128) and label_set.palette[13] == (0, 0, 142)  # road, car


def test_cityscapes_other_label_sets():
    info = cityscapes.info()
    everything = info.label_set("all_ids")
    fischer2021 = info.label_set("fischer2021_r2unet")
    assert everything.table[:34].tolist() == list(range(34)) and everything.num_classes == 34
    assert fischer2021.table[:34].tolist() == [min(i, 20) for i in range(34)] and fischer2021.num_classes == 21
    for label_set in (everything, fischer2021):
        # 255 is void, but the authors' code makes it 0: it ignores nothing.
        assert label_set.table[255] == (0 if label_set.name == "fischer2021_r2unet" else IGNORE_LABEL)
        assert label_set.table[34] == INVALID_LABEL


def test_camvid_ignores_unlabelled_only():
    label_set = camvid.info().label_set()
    assert label_set.num_classes == 11
    assert label_set.table[:12].tolist() == [*range(11), IGNORE_LABEL]
    assert label_set.classes[3] == "Road" and label_set.palette[3] == (128, 64, 128)


@pytest.mark.parametrize("module", [camvid, cityscapes])
def test_json_round_trip(module):
    info = module.info()
    again = DatasetInfo.from_json(info.to_json())
    assert again == info
    assert again.label_set().table.dtype == np.uint8


def test_label_sets_differ_by_their_table():
    same = label_set_of("train_ids", [3], ["road"], [(1, 2, 3)])
    other = label_set_of("train_ids", [4], ["road"], [(1, 2, 3)])
    assert same == label_set_of("train_ids", [3], ["road"], [(1, 2, 3)]) and same != other


def test_a_class_may_use_id_255():
    assert label_set_of("train_ids", [0, 255], ["a", "b"], [(0, 0, 0), (1, 1, 1)]).table[255] == 1


def test_errors_say_what_to_do():
    info = cityscapes.info()
    with pytest.raises(ValueError, match="no label set 'x'. Choose one of: train_ids, all_ids, fischer2021_r2unet"):
        info.label_set("x")
    table = np.zeros(256, np.uint8)
    with pytest.raises(ValueError, match="one colour per class is needed, got 2 for 1"):
        LabelSet("s", ("a",), ((0, 0, 0), (1, 1, 1)), table)
    with pytest.raises(ValueError, match="the table gives 7, but there are 1 classes"):
        LabelSet("s", ("a",), ((0, 0, 0),), table + 7)
    with pytest.raises(ValueError, match="256 values"):
        LabelSet("s", ("a",), ((0, 0, 0),), table[:3])
    with pytest.raises(ValueError, match="three whole numbers"):
        LabelSet("s", ("a",), ((0, 0, 300),), table)
    with pytest.raises(ValueError, match="missing: void_ids"):
        DatasetInfo.from_json({k: v for k, v in info.to_json().items() if k != "void_ids"})


def test_preparing_data_imports_no_tensorflow():
    code = "import sys, kseg.data.records.prepare; print({'tensorflow', 'keras', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
