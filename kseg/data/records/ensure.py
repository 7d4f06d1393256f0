"""What to do about a missing record folder: draw the streets, or say what to download."""

import os
import pathlib

from kseg.data.datasets import DATASETS
from kseg.data.records.manifest import MANIFEST
from kseg.data.records.prepare import check_output, prepare_dataset
from kseg.data.synthetic.dataset import check_drawing, draw_cityscapes
from kseg.io.errors import InputError, MissingFileError
from kseg.io.progress import progress_bar


def draw_streets(source, *, workers=None, **drawing):
    """Draw synthetic streets in Cityscapes' folder layout, with a progress bar (`synthetic.draw_cityscapes`)."""
    with progress_bar("draw", None, unit="streets") as bar:

        def progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        draw_cityscapes(source, workers=workers, progress=progress, **drawing)


def ensure_records(dataset, data_dir):
    """Draw the streets if they are missing; for a real dataset, say in three lines how to get it.

    Args:
        dataset: a name of DATASETS: what `data_dir` should hold.
        data_dir: the record folder. One that holds any TFRecord shards is left to the reader to judge.
    Raises:
        FileNotFoundError: no records of a real dataset there.
        ValueError: the streets there are of another version of kseg.
    """
    if "://" in str(data_dir):
        return
    folder = pathlib.Path(data_dir)
    if dataset == "synthetic":
        check_drawing(folder / "source")
        if not (folder / MANIFEST).exists():
            check_output(str(folder), drawn=True)
            draw_streets(folder / "source")
            prepare_dataset("cityscapes", folder / "source", folder)
    elif folder.is_file():
        raise InputError(f"--data_dir must be a record folder, which kseg prepare writes, but {folder} is a file.")
    elif not (folder / MANIFEST).exists() and (folder / "classes.json").exists():
        raise MissingFileError(
            f"No records in {folder}, but a classes.json: it looks like images and labels of your own. Prepare their "
            "records, and give that folder:\n"
            f"kseg prepare --dataset=folder --source={folder} --output=RECORD_FOLDER"
        )
    elif not (folder / MANIFEST).exists() and not (folder.is_dir() and any("-of-" in f for f in os.listdir(folder))):
        raise MissingFileError(
            f"No records in {data_dir} yet. Put into one folder: {DATASETS[dataset].download}.\n"
            "Then prepare the records and start again:\n"
            f"kseg prepare --dataset={dataset} --source=THAT_FOLDER --output={data_dir}"
        )
