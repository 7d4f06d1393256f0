"""The files in a folder of predicted label maps: found and compared with a split's images before Keras is imported."""

import pathlib

from kseg.data.datasets.listing import walk_files
from kseg.inference.label_marks import CLASSES_FILE
from kseg.inference.outside.file_kinds import LABEL_MAPS
from kseg.io.errors import InputError
from kseg.io.text import count_text, first_names

SHOWN = 5


def check_label_maps(described, split):
    """Refuse, as `files_of_split` does, each described folder of label maps; split: None where it is not known yet."""
    for one in described:
        if one.kind == LABEL_MAPS and split is not None:
            files_of_split(one.file, split)


def files_of_split(folder, split):
    """Return the path of the label map of each image of a split, in its order.

    Args:
        folder: of label maps. split: of a manifest.
    Raises:
        InputError: an image without a label map, a file of no image.
    """
    folder = pathlib.Path(folder)
    files = {str(pathlib.Path(path).relative_to(folder)): path for path in walk_files(str(folder))}
    wanted = [f"{name}.png" for name in split.names]
    missing = [name for name in wanted if name not in files]
    extra = sorted(set(files) - {*wanted, CLASSES_FILE})
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(wanted)} images have none: {first_names(missing, SHOWN)}")
    if extra:
        problems.append(f"{count_text(len(extra), 'file')} of no image: {first_names(extra, SHOWN)}")
    if problems:
        raise InputError(
            f"{folder} must hold a label map for each image of split {split.name} and nothing else, named like "
            f"{wanted[0]}, but {'; '.join(problems)}."
        )
    return [files[name] for name in wanted]
