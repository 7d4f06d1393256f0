"""CamVid in the SegNet tutorial's 11 classes (Brostow et al. 2009; Badrinarayanan et al. 2017)."""

import os

from kseg.data.datasets.image_folders import read_classes, read_split_folders
from kseg.data.datasets.listing import Source
from kseg.data.labels import DatasetInfo, label_set_of
from kseg.io.errors import InputError

_IDS = (
    ("Sky", (128, 128, 128)),
    ("Building", (128, 0, 0)),
    ("Pole", (192, 192, 128)),
    ("Road", (128, 64, 128)),
    ("Pavement", (60, 40, 222)),
    ("Tree", (128, 128, 0)),
    ("SignSymbol", (192, 128, 128)),
    ("Fence", (64, 64, 128)),
    ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Bicyclist", (0, 128, 192)),
    ("Unlabelled", (0, 0, 0)),
)


def info() -> DatasetInfo:
    """Return CamVid's ids (0..10 classes, 11 void) and its label set "train_ids" (the 11 classes)."""
    names = [row[0] for row in _IDS]
    colours = [row[1] for row in _IDS]
    return DatasetInfo(
        name="camvid",
        id_names=dict(enumerate(names)) | {255: "void"},
        id_palette=dict(enumerate(colours)) | {255: (0, 0, 0)},
        void_ids=(11, 255),
        label_sets={"train_ids": label_set_of("train_ids", range(11), names[:11], colours[:11], (11,))},
    )


def read(source) -> Source:
    """List CamVid: SPLIT/NAME.png with SPLITannot/NAME.png as the SegNet tutorial has it, or SPLIT/images and /labels.

    Args:
        source: folder with train/, val/ and, if there, test/; other names as in `image_folders.read_split_folders`.

    Returns:
        A Source; unpaired files are its problems.

    Raises:
        FileNotFoundError: the folder, or train/ or val/ in it, is not there.
        ValueError: a classes.json says that the ids are other classes.
    """
    known = info()
    if os.path.isfile(path := os.path.join(source, "classes.json")):
        own = read_classes(path)[0].label_set().classes
        if own != known.label_set().classes:
            raise InputError(
                f"{path} names other classes than CamVid's ({', '.join(own[:3])}, ...). "
                "Prepare a folder of your own with --dataset=folder."
            )
    return read_split_folders(source, known, ("train", "val"))
