"""Videos, frame by frame, through PyAV: FFmpeg with the time of each frame.

PyAV and not OpenCV: its wheel (34 MB against 58) brings FFmpeg with x264 and FFV1, it gives the time of each frame and
takes one for each that is written, so that a phone's uneven frames keep their times. OpenCV writes one fixed rate, has
no lossless codec of one channel in its wheel, and does not say which frames were damaged.
"""

import contextlib
import fractions

import numpy as np

from kseg.io.errors import InputError
from kseg.io.files import reading, replacing

NEEDS_PYAV = "videos need PyAV: pip install 'kseg[video]'"
_DEFAULT_RATE = fractions.Fraction(25)  # where a file does not say how many frames a second it has
_SLACK = fractions.Fraction(1, 2)  # seconds that a file may end before what its header says, if FFmpeg finds no error
_CODECS = {
    ".mp4": ("libx264", {"crf": "18", "preset": "veryfast"}),
    ".mkv": ("ffv1", {"level": "3", "slicecrc": "1"}),  # keeps every number
}
_MADE_BY = "kseg "  # how the comment in a video begins
_BT_709 = 1  # how players take RGB out of the colours of a video


def is_installed():
    """Whether PyAV is installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def check_installed(path):
    """Raise InputError, which names a video, where PyAV is not installed."""
    if not is_installed():
        raise InputError(f"{path}: {NEEDS_PYAV}. Or leave the video out.")


class VideoReader:
    """A video file, opened; a context manager.

    path: of the file. frames: how many it has by its header, 0 if unknown. rate: frames a second on average.
    time_base: seconds of a unit of time. aspect: width of a pixel of the upright frames by its height, None if the file
    does not say; known when a frame has been read. problem: what was found to be damaged, when all frames are read; "":
    nothing.

    Raises:
        InputError: the file is no video, or damaged so that it cannot be opened.
    """

    def __init__(self, path):
        import av

        self.path = path
        try:
            with reading(path):
                self._container = av.open(str(path))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}: damaged or not a video ({_reason(error)})") from error
        if not self._container.streams.video:
            self._container.close()
            raise InputError(f"{path}: damaged or not a video (it has no pictures)")
        self._stream = self._container.streams.video[0]
        self.rate = self._stream.average_rate or self._stream.guessed_rate or _DEFAULT_RATE
        self.time_base = self._stream.time_base or 1 / self.rate
        self._seconds = _seconds_of(self._stream)
        self.frames = self._stream.frames or int((self._seconds or 0) * self.rate)
        self.aspect = None
        self.problem = ""
        self._lost = 0  # packets
        self._resized = False
        self._opened = contextlib.ExitStack()
        self._errors = []

    def __enter__(self):
        self._opened.callback(self._container.close)
        self._errors = self._opened.enter_context(_logged_errors())
        return self

    def __exit__(self, *error):
        self._opened.close()

    def read(self):
        """Give every frame that can be decoded: (uint8 (H, W, 3) RGB, upright; its time; how long it is shown).

        Both are in units of time_base. Times begin at 0 and grow. Frames are turned as the file says that they are to
        be shown.
        """
        step = max(1, round(1 / (self.rate * self.time_base)))
        count = corrupt = 0
        first = shape = gap = None
        time = end = -1
        for frame in self._decoded():
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            if first is None:
                first = frame.pts or 0
                shape = pixels.shape
                self.aspect = self._stream.sample_aspect_ratio or None
                if self.aspect and frame.rotation % 180:
                    self.aspect = 1 / self.aspect
            if pixels.shape != shape:
                self._resized = True
                break
            given = time + step if frame.pts is None else frame.pts - first
            time = max(given, time + 1)
            if gap is None and count and time > end + step / 2:
                gap = (end * self.time_base, time * self.time_base)
            duration = frame.duration or step
            end = time + duration
            corrupt += frame.is_corrupt
            count += 1
            yield np.ascontiguousarray(pixels), time, duration
        self._judge(count, corrupt, max(end, 0) * self.time_base, gap)

    def _decoded(self):
        """Give the frames of all packets that decode, also of those after one that does not."""
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:  # the last packet was an empty one, which made the decoder give all it had
                return
            except av.FFmpegError:
                self._lost += 1
                break
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self._lost += 1
                continue
            yield from frames
        with contextlib.suppress(av.FFmpegError):
            yield from self._stream.decode(None)

    def _judge(self, count, corrupt, seconds, gap):
        """Set `problem`. A gap, or an end somewhat early, is damage only beside an error of FFmpeg: phones pause."""
        faults = []
        read = {self._container.format.name, self._stream.codec_context.name}
        errors = any(source in read for _, source, _ in self._errors)
        step = 1 / fractions.Fraction(self.rate)
        if self._resized:
            faults.append(f"its frames change their size after {float(seconds):.1f} s")
        elif self._seconds and seconds < self._seconds - (step / 2 if errors else _SLACK):
            faults.append(f"it ends after {float(seconds):.1f} of {float(self._seconds):.1f} s")
        if errors and gap:
            faults.append(f"frames between {float(gap[0]):.1f} and {float(gap[1]):.1f} s are lost")
        if self._lost or corrupt:
            faults.append("some of its frames are damaged")
        if not count and not faults:
            faults.append("it has no frames")
        if faults:
            of_all = f" of {self.frames}" if self.frames >= count else ""
            self.problem = f"{self.path}: {' and '.join(faults)}; {count}{of_all} frames were labelled"


@contextlib.contextmanager
def _logged_errors():
    """Give the list of (level, source, text) that FFmpeg's log gets of errors, from now on to the end of the block.

    FFmpeg skips what it cannot read in a container, and says so nowhere else.
    """
    import av.logging

    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # which holds a message back until the next one, of another file
    try:
        with av.logging.Capture(local=False) as errors:
            yield errors
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)


def count_frames(path):
    """Return how many frames a video has by its header; 0 if it does not say or cannot be opened."""
    try:
        with VideoReader(path) as video:
            return video.frames
    except InputError:
        return 0


def is_label_video(path):
    """Whether a file is a video that `writing_video` wrote; False where PyAV is not installed."""
    try:
        import av

        with av.open(str(path)) as container:
            texts = {key.lower(): text for key, text in container.metadata.items()}
    except (ImportError, OSError, ValueError):  # of FFmpeg: what it raises is of both
        return False
    return texts.get("comment", "").startswith(_MADE_BY)


def _seconds_of(stream):
    """Return how long a stream is by its header, None if it does not say; Matroska has it as a text."""
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = map(fractions.Fraction, parts)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds


def _reason(error):
    return getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def writing_video(path, rate, time_base, comment, aspect_of=lambda: None):
    """Give a function (picture, time, duration) that adds a frame to a video, which is there completely or not at all.

    A picture is uint8 (H, W, 3) RGB for .mp4 or (H, W) for .mkv, all of one size. Its time and how long it is shown are
    in units of `time_base`; times grow.

    Args:
        path: pathlib.Path, .mp4 for colours (H.264, which players know) or .mkv for numbers (FFV1, one channel,
            lossless); its folder is made if missing. rate, time_base: of the VideoReader. comment: what the file is.
        aspect_of: function that is asked at the first frame for VideoReader.aspect.
    """
    import av

    with replacing(path) as temporary, av.open(temporary, "w") as container:
        container.metadata["comment"] = _MADE_BY + comment
        codec, options = _CODECS[path.suffix]
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.codec_context.time_base = time_base

        def write(picture, time, duration):
            if not stream.codec_context.is_open:
                _set_size(stream, codec, *picture.shape[:2])
                if aspect := aspect_of():  # Matroska, for numbers, does not keep it
                    stream.codec_context.sample_aspect_ratio = aspect
            frame = _frame(stream, picture)
            frame.time_base = time_base
            frame.pts = time
            frame.duration = duration
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode(None))  # what the encoder still has


def _set_size(stream, codec, height, width):
    stream.height = height
    stream.width = width
    stream.pix_fmt = "gray"
    if codec == "libx264":
        even = height % 2 == 0 and width % 2 == 0
        stream.pix_fmt = "yuv420p" if even else "yuv444p"  # a pixel of colour for four of light needs even sides
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT_709


def _frame(stream, picture):
    """Return a picture as the encoder takes it."""
    import av

    if picture.ndim == 2:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return frame.reformat(format=stream.pix_fmt, dst_colorspace="ITU709")
