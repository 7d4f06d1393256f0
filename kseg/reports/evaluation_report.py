"""Everything that one pass over a split shows beyond the scores: confusions, boundaries, objects."""

import csv
import io
import math
import pathlib
from typing import NamedTuple

from kseg.data.records.manifest import record_files
from kseg.evaluation.cityscapes_protocol import SceneCounts
from kseg.evaluation.evaluate import open_for, with_reads
from kseg.evaluation.one_pass import split_pass
from kseg.evaluation.standard_protocol import split_groups
from kseg.inference.label_model import class_count
from kseg.inference.loading import as_model
from kseg.inference.model_paths import model_files
from kseg.inference.predictor import confident_predictor, gives_confidence, predictor
from kseg.io.files import write_atomic, write_json, writing
from kseg.io.outputs import refuse_inputs
from kseg.metrics.boundaries import BoundaryScores
from kseg.metrics.calibration import Calibration, CalibrationCounts
from kseg.metrics.cityscapes_scores import CityscapesScores
from kseg.metrics.objects import ObjectScores
from kseg.metrics.scores import ScoreCounts, Scores
from kseg.reports.report_files import ALWAYS, CALIBRATION, FILES, GROUPS, check_own_report
from kseg.score_table import SCORES
from kseg.visualization.confusion_picture import draw_confusion_matrix, write_confusion_csv
from kseg.visualization.reliability_picture import draw_reliability


def write_groups_csv(scores, path):
    """Write a row for each group of a Scores: its name, its images, and every score; empty where there is none."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["group", "images", *SCORES])
    for name, row in scores.groups.items():
        values = ["" if math.isnan(row[score]) else row[score] for score in SCORES]
        table.writerow([name, row["images"], *values])
    write_atomic(path, text.getvalue().encode())


class Report(NamedTuple):
    """What `write_report` found; `str()` is its tables of objects and boundaries, and a line on calibration.

    scores, cityscapes: as `kseg.evaluate`'s under the protocols "standard" and "cityscapes" (None: not asked for).
    calibration: None of a model without probabilities. files: the names of those written.
    """

    scores: Scores
    objects: ObjectScores
    boundaries: BoundaryScores
    cityscapes: CityscapesScores | None
    calibration: Calibration | None
    files: tuple

    def __str__(self):
        parts = [self.objects, self.boundaries]
        if self.calibration is not None:
            parts.append(f"expected calibration error {self.calibration.expected_error:.4f}")
        return "\n\n".join(map(str, parts))


def write_report(
    model,
    data_dir,
    folder,
    *,
    split="val",
    label_set=None,
    label_space=None,
    batch_size=1,
    progress=False,
    cityscapes=False,
    group_by=None,
    class_map=None,
):
    """Run a model once over a split, at the labels' own resolution, and write what it confuses, misses and blurs.

    Writes confusion.csv, confusion.png, objects.json (metrics.objects.ObjectScores, with the records' instance maps
    where they have them) and boundaries.json (metrics.boundaries.BoundaryScores) into a folder; of a model that gives
    probabilities calibration.json (metrics.calibration.Calibration) and its diagram reliability.png; with
    `group_by` also groups.csv, the scores of each group. Such files of an earlier report, which this one has not, go.

    Args:
        model: keras.Model that gives logits, or a path that `kseg.load_model` takes. data_dir: a record folder.
        folder: made if missing. cityscapes: take the scores of that protocol in the same pass too. The rest, also
            group_by and class_map, as in `kseg.evaluate`.
    Returns:
        Report
    Raises:
        ValueError: unknown split or label set, the model's classes are not the data's, an image missing, an instance
            map of some records only, a file of the report that is one of the model's or records', a file in its
            place that is not of a report. Nothing is written then, but the folder may have been made.
        FloatingPointError: scores that are nan or infinite; it names the image. Nothing is written then either.
    """
    paths = [pathlib.Path(folder, name) for name in FILES]
    refuse_inputs(paths, [*model_files(model), *record_files(data_dir)])
    check_own_report(folder)
    model, source = open_for(as_model(model), data_dir, split, label_set, label_space, class_map)
    groups = split_groups(source, group_by)
    official = None
    if cityscapes:
        official = SceneCounts(source, class_count(model))
    folder = pathlib.Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    classes = source.label_set.classes
    counts = ScoreCounts(classes, groups, split)
    boundaries = BoundaryScores(classes)
    objects = ObjectScores(classes)
    confident = gives_confidence(model)
    sureness = CalibrationCounts(len(classes))
    predict = confident_predictor(model) if confident else predictor(model)
    with source.readable_errors():
        for scene in split_pass(source, [predict], batch_size, confident=confident, progress=progress, title="report"):
            prediction = scene.predictions[0]
            counts.add(scene.truth, prediction)
            boundaries.update(scene.truth, prediction)
            objects.update(scene.truth, prediction, scene.instances)
            if confident:
                sureness.add(scene.truth, prediction, scene.confidences[0])
            if official:
                official.add(scene)
    scores = with_reads(counts.scores(len(source)), model)
    objects.to_json(folder / "objects.json")  # first: it shows that the others are kseg's
    write_confusion_csv(scores, folder / "confusion.csv")
    draw_confusion_matrix(scores, folder / "confusion.png")
    boundaries.to_json(folder / "boundaries.json")
    files = ALWAYS
    calibration = None
    if confident:
        calibration = sureness.calibration()
        write_json(folder / "calibration.json", calibration.to_json())
        draw_reliability(calibration, folder / "reliability.png")
        files += CALIBRATION
    if groups is not None:
        write_groups_csv(scores, folder / "groups.csv")
        files += GROUPS
    for name in FILES:
        if name not in files:
            folder.joinpath(name).unlink(missing_ok=True)  # of the report before
    return Report(scores, objects, boundaries, official and official.scores(), calibration, files)
