"""report/index.html of a study: the numbers of report.json, and label maps of a few images as a gallery."""

import pathlib

import numpy as np

from kseg.data.pipeline.examples import Examples
from kseg.io.errors import InputError
from kseg.reports.page.image_rows import image_row, scored_rows
from kseg.reports.page.output_folder import replaced_folder
from kseg.reports.page.pictures import Pictures
from kseg.reports.page.write_page import write_page
from kseg.studies.kept_maps import FOLDER as MAPS
from kseg.studies.kept_maps import kept_images, prediction_path, read_map, truth_path

FOLDER = "report"
KIND = "study"


def write_study_page(output, table, runs):
    """Write OUTPUT/report/: index.html, study.json with all of its numbers, and pictures.

    The same report, maps and records give the same bytes.

    Args:
        output: a study's folder. table: what report.json holds. runs: {(data, split): {model: {seed: RunCounts}}}.
    Raises:
        InputError: OUTPUT/report holds something else, or a label map is damaged.
    """
    output = pathlib.Path(output)
    records = {data["name"]: data["data_dir"] for data in table["plan"]["data"]}
    with replaced_folder(output / FOLDER, KIND) as folder:
        galleries = []
        for number, section in enumerate(table["sections"]):
            of_section = runs[section["data"], section["split"]]
            part = folder / str(number)
            galleries.append(_gallery(output, part, section, of_section, records[section["data"]]))
        write_page(folder, KIND, {**table, "title": f"Study {table['name']}", "galleries": galleries})


def _gallery(output, folder, section, runs, data_dir):
    """Draw the images of a section whose maps are there; return what it needs, or {"open": why it has none}."""
    best_first = [row["model"] for row in section["scores"]]
    order = [*best_first, *(model for model in runs if model not in best_first)]
    maps = {model: _maps_of(output, section, model, runs[model]) for model in order}
    maps = {model: found for model, found in maps.items() if found is not None}
    if len(maps) < 2:
        return {
            "open": f"No images: the gallery needs label maps of two models, and {MAPS}/ has those of {len(maps)}. A "
            "run of the first seed keeps its maps when it is scored; one that kseg scored before has none."
        }
    one = runs[next(iter(maps))][next(iter(maps.values()))[0]]
    truths = _truths(output, section, one)
    indices = [index for index in truths if all(index in found for _, found in maps.values())]
    photos, why = _photographs(data_dir, section["split"], one)
    folder.mkdir()
    pictures = Pictures(folder, one.palette.tolist(), len(maps), photos is not None)
    rows = []
    for index in indices:
        truth = truths[index]
        predictions = [found[index] for _, found in maps.values()]
        valid = truth < len(one.classes)
        photo = None if photos is None else photos[index][0]
        pictures.add(len(rows), photo, truth, predictions, valid)
        rows.append(image_row(one.names[index], truth, predictions, valid))
    scored = [runs[model][seed].counts[indices] for model, (seed, _) in maps.items()]
    counts = [one.counts[indices, :1], *(of[:, 1:2] for of in scored), *(of[:, 2:] for of in scored)]
    return {
        "folder": f"{folder.name}/",
        "models": [{"name": model, "seed": seed} for model, (seed, _) in maps.items()],
        "without": [model for model in order if model not in maps],
        "classes": list(one.classes),
        "palette": one.palette.tolist(),
        "photos": photos is not None,
        "why_no_photos": why,
        "images": scored_rows(rows, np.concatenate(counts, axis=1)),
    }


def _maps_of(output, section, model, runs):
    """Return (seed, {image: ids}) of the first run that has maps, None where none has."""
    for seed, run in runs.items():
        found = {}
        for index in kept_images(len(run.names)):
            path = prediction_path(output, model, section["data"], seed, section["split"], index)
            ids = read_map(path, len(run.classes))
            if ids is not None:
                found[index] = ids
        if found and run.palette is not None:
            return seed, found
    return None


def _truths(output, section, one):
    """Return {image: ids} of the true maps that are there."""
    found = {}
    for index in kept_images(len(one.names)):
        ids = read_map(truth_path(output, section["data"], section["split"], index), len(one.classes))
        if ids is not None:
            found[index] = ids
    return found


def _photographs(data_dir, split, one):
    """Return (Examples, "") of a split, or (None, why there are no photographs)."""
    try:
        examples = Examples(data_dir, split)
    except (InputError, FileNotFoundError) as error:
        return None, f"No photographs: {error}"
    if examples.manifest.digest != one.row["manifest_sha256"]:
        return None, f"No photographs: the records {data_dir} have changed since the runs were scored."
    return examples, ""
