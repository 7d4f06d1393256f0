"""report/index.html of a study: the numbers of report.json, and label maps of a few images as a gallery."""

import dataclasses
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
from kseg.studies.run_counts import RunCounts

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
    galleries = []
    with replaced_folder(output / FOLDER, KIND) as folder:
        for number, (section, shown) in enumerate(_shown(output, table, runs)):
            photos, why = None, ""
            if shown is not None:
                photos, why = _photographs(records[section["data"]], section["split"], shown.one)
                _draw(folder / str(number), shown, photos)
            galleries.append(_facts(number, section, runs, shown, photos is not None, why))
        write_page(folder, KIND, _with_galleries(table, galleries))


def page_table(output, table, runs, photographs):
    """Return report/study.json: the numbers of report.json, and what the galleries say of the maps.

    Args:
        output, table, runs: as in `write_study_page`. photographs: (whether there are any, why not) of each section.
    """
    sections = enumerate(_shown(output, table, runs))
    galleries = [_facts(number, section, runs, shown, *photographs[number]) for number, (section, shown) in sections]
    return _with_galleries(table, galleries)


def _with_galleries(table, galleries):
    return {**table, "title": f"Study {table['name']}", "galleries": galleries}


@dataclasses.dataclass(frozen=True)
class _Shown:
    """Maps of a section's gallery: {model: (seed, {image: ids})}, {image: true ids}, and one of the runs."""

    maps: dict
    truths: dict
    one: RunCounts

    @property
    def indices(self):
        """The images of which every model has a map."""
        return [index for index in self.truths if all(index in found for _, found in self.maps.values())]

    def image(self, index):
        """Return (true ids, the models' ids, the pixels of a class) of an image."""
        truth = self.truths[index]
        return truth, [found[index] for _, found in self.maps.values()], truth < len(self.one.classes)


def _shown(output, table, runs):
    """Yield each section with its _Shown, None where fewer than two models have maps."""
    for section in table["sections"]:
        of_section = runs[section["data"], section["split"]]
        maps = {model: _maps_of(output, section, model, of_section[model]) for model in _order(section, of_section)}
        maps = {model: found for model, found in maps.items() if found is not None}
        if len(maps) < 2:
            yield section, None
            continue
        one = of_section[next(iter(maps))][next(iter(maps.values()))[0]]
        yield section, _Shown(maps, _truths(output, section, one), one)


def _order(section, runs):
    best_first = [row["model"] for row in section["scores"]]
    return [*best_first, *(model for model in runs if model not in best_first)]


def _draw(folder, shown, photos):
    folder.mkdir()
    pictures = Pictures(folder, shown.one.palette.tolist(), len(shown.maps), photos is not None)
    for number, index in enumerate(shown.indices):
        pictures.add(number, None if photos is None else photos[index][0], *shown.image(index))


def _facts(number, section, runs, shown, photos, why_no_photos):
    """Return what a section's gallery needs, or {"open": why it has none}."""
    if shown is None:
        return {
            "open": f"No images: the gallery needs label maps of two models, and {MAPS}/ has them of fewer. A run of "
            "the first seed keeps its maps when it is scored; one that kseg scored before has none."
        }
    one = shown.one
    runs = runs[section["data"], section["split"]]
    rows = [image_row(one.names[index], *shown.image(index)) for index in shown.indices]
    scored = [runs[model][seed].counts[shown.indices] for model, (seed, _) in shown.maps.items()]
    counts = [one.counts[shown.indices, :1], *(of[:, 1:2] for of in scored), *(of[:, 2:] for of in scored)]
    return {
        "folder": f"{number}/",
        "models": [{"name": model, "seed": seed} for model, (seed, _) in shown.maps.items()],
        "without": [model for model in _order(section, runs) if model not in shown.maps],
        "classes": list(one.classes),
        "palette": one.palette.tolist(),
        "photos": photos,
        "why_no_photos": why_no_photos,
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
