"""Images and videos in, files out: what `predict` does with each."""

import contextlib
import sys

import numpy as np
from tqdm import tqdm

from kseg.inference import videos
from kseg.inference.compatibility import check_outputs
from kseg.inference.ensemble import largest_disagreement
from kseg.inference.input_files import is_video
from kseg.inference.label_ids import label_ids
from kseg.inference.label_map_files import USUAL, check_classes, save_classes, save_label_map
from kseg.inference.label_model import label_set_of
from kseg.inference.loading import as_model
from kseg.inference.looks import ONE_LOOK
from kseg.inference.predictor import MEASURES, measuring_predictor
from kseg.io.errors import DamagedInputError, InputError, check_whole
from kseg.io.progress import progress_bar
from kseg.visualization.label_maps import bands, colorize
from kseg.visualization.overlays import frame_legend, overlay, with_legend


class Labelling:
    """A model, and how it labels images and videos.

    Args:
        model: keras.Model that gives logits, or what `load_model` takes. wanted: Wanted. looks: Looks. batch_size:
            images of one size, or frames, that are labelled at once. progress: show a bar on standard error, and print
            each file's path on standard output when it is written.
    Raises:
        InputError: a model without the colours, confidence or disagreement that is to be written.
    """

    def __init__(self, model, *, wanted=USUAL, looks=ONE_LOOK, batch_size=1, progress=False):
        check_whole("batch_size", batch_size, 1)
        model = as_model(model, looks)
        check_outputs(model)
        known = label_set_of(model) or {}
        self._palette = known.get("palette")
        if wanted.in_colour and not self._palette:
            raise InputError(
                "The model carries no class colours. Train it with kseg, write labels alone (--write=labels), or call "
                "kseg.predict."
            )
        self._ids = label_ids(model, wanted.ids)
        self._classes = [row["name"] for row in self._ids.facts["classes"]]
        self._kinds = wanted.kinds
        self._predict = measuring_predictor(model, [kind for kind in MEASURES if kind in wanted.kinds])
        self._largest = {"confidence": 1}
        if "disagreement" in wanted.kinds:
            self._largest["disagreement"] = largest_disagreement(len(model.models), model.num_classes)
        self._batch_size = batch_size
        self._progress = progress
        self._damaged = []
        self._labelled = 0
        self._folder = None

    def run(self, images, outputs, folder, read, left_out=()):
        """Label images and videos and write their files.

        Args:
            images: (image, name) of each. outputs: {kind: path} of each. folder: of the output. read: function of an
                image -> its pixels, InputError where it is damaged. left_out: lines on further inputs, which are not
                read.
        Raises:
            DamagedInputError: inputs that cannot be read, or not to their end; all others were labelled.
        """
        self._note(self._ids.note)
        for line in left_out:
            self._leave_out(line)
        self._folder = folder
        if "labels" in self._kinds:
            check_classes(folder, self._ids.facts)
        jobs = [(image, files) for (image, _), files in zip(images, outputs, strict=True)]
        clips = [job for job in jobs if is_video(job[0])]
        pictures = [job for job in jobs if not is_video(job[0])]
        total = len(pictures) + sum(videos.count_frames(path) for path, _ in clips)
        unit = "images and frames" if clips else "images"
        with progress_bar("predict", total, unit=unit, shown=self._progress, warm=True) as bar:
            for batch in self._batches(pictures, read):
                self._label_images(batch)
                bar.update(len(batch))
                del batch  # large images: one at a time
            for path, files in clips:
                try:
                    video = videos.VideoReader(path)
                except InputError as error:
                    self._leave_out(error)
                    continue
                with video:
                    self._label_video(video, files, bar)
        if self._damaged:
            count = f"{len(self._damaged)} of {len(images) + len(left_out)} inputs cannot be read"
            rest = f"what could be labelled is in {folder}"
            if not self._labelled:
                rest = "nothing could be labelled"
            raise DamagedInputError("\n".join([f"{count}; {rest}:", *self._damaged]))

    def _batches(self, jobs, read):
        """Give lists of (pixels, image, files) of one size."""
        batch = []
        for image, files in jobs:
            try:
                pixels = read(image)
            except InputError as error:
                self._leave_out(error)
                continue
            if batch and pixels.shape != batch[0][0].shape:
                yield batch
                batch = []
            batch.append((pixels, image, files))
            del pixels
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _label_images(self, batch):
        self._count(len(batch))
        images = [pixels for pixels, _, _ in batch]
        for (pixels, _, files), ids, measured in zip(
            batch, *self._label(images, [image for _, image, _ in batch]), strict=True
        ):
            for kind, path in files.items():
                picture = self._picture(kind, pixels, ids, measured)
                if kind == "overlay":
                    picture = with_legend(picture, ids, self._classes, self._palette)
                save_label_map(path, picture, self._ids.mark if kind == "labels" else None)
                self._say(path)
                del picture

    def _count(self, number):
        """Count what is to be labelled; classes.json is written before the first, and so not where there is none."""
        if not self._labelled and "labels" in self._kinds and (path := save_classes(self._folder, self._ids.facts)):
            self._say(path)
        self._labelled += number

    def _label(self, images, names):
        """Return class ids uint8 (B, H, W), and for each image what is measured, {kind: (H, W)}."""
        stacked = images[0][None] if len(images) == 1 else np.stack(images)
        ids, measured = self._predict(stacked, *stacked.shape[1:3], names)
        of_each = [{kind: values[i] for kind, values in measured.items()} for i in range(len(images))]
        return ids.astype(np.uint8, copy=False), of_each

    def _picture(self, kind, pixels, ids, measured):
        """Return a file's picture, uint8: (H, W) numbers or (H, W, 3) colours."""
        if kind == "labels":
            return np.frombuffer(ids.tobytes().translate(self._ids.table.tobytes()), np.uint8).reshape(ids.shape)
        if kind == "color":
            return colorize(ids, self._palette)
        if kind == "overlay":
            return overlay(pixels, ids, self._palette)
        picture = np.empty(ids.shape, np.uint8)
        factor = 255 / self._largest[kind]
        for rows in bands(len(picture)):
            picture[rows] = np.rint(factor * measured[kind][rows]).clip(0, 255)  # rounding may exceed the largest
        return picture

    def _label_video(self, video, files, bar):
        with contextlib.ExitStack() as stack:
            writers = {}
            legend = None
            for frames in _grouped(video.read(), self._batch_size):
                self._count(len(frames))
                images = [pixels for pixels, *_ in frames]
                if not writers:
                    writers = {kind: stack.enter_context(self._writer(video, kind, files[kind])) for kind in files}
                    if "overlay" in writers:
                        legend = frame_legend(*images[0].shape[:2], self._classes, self._palette)
                names = [f"the frame of {float(time * video.time_base):.3f} s of {video.path}" for _, time, _ in frames]
                for (pixels, *times), ids, measured in zip(frames, *self._label(images, names), strict=True):
                    for kind, write in writers.items():
                        picture = self._picture(kind, pixels, ids, measured)
                        if kind == "overlay" and len(legend):
                            picture[-len(legend) :] = legend
                        write(picture, *times)
                if bar.total:  # a container may say too few
                    bar.total = max(bar.total, bar.n + len(frames))
                bar.update(len(frames))
        for kind in writers:
            self._say(files[kind])
        if video.problem:
            self._damaged.append(video.problem)
            self._note(video.problem)

    def _writer(self, video, kind, path):
        comment = f"label map, ids {self._ids.mark}" if kind == "labels" else kind
        return videos.writing_video(path, video.rate, video.time_base, comment, lambda: video.aspect)

    def _leave_out(self, why):
        self._damaged.append(str(why))
        self._note(f"left out: {why}")

    def _note(self, line):
        if self._progress and line:
            tqdm.write(str(line), file=sys.stderr)

    def _say(self, path):
        if self._progress:
            tqdm.write(str(path))  # above the bar
            sys.stdout.flush()


def _grouped(frames, size):
    """Give lists of `size` frames, the last one of what is left."""
    group = []
    for frame in frames:
        group.append(frame)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
