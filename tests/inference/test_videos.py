"""Videos: each frame is labelled as the photograph it is, at its own time; damage is told, and labelled up to there."""

import re
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest
import tiny

import kseg
from kseg.inference.input_files import list_images
from kseg.inference.label_map_files import Wanted
from kseg.inference.predict_files import predict_files
from kseg.inference.videos import VideoReader
from kseg.io.errors import DamagedInputError, InputError

av = pytest.importorskip("av")

IDS = [7, 26, 23]
COLOURS = [[200, 30, 30], [30, 200, 30], [30, 30, 200]]
GREYS = (30, 120, 220)  # one of each class of `brightness_model`
UPRIGHT = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)  # an MP4's display matrix
TURNED = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 48 << 16, 0, 0, 1 << 30)  # shown a quarter turn clockwise


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    model = tiny.brightness_model()
    model.layers[1].label_set = {
        "name": "train_ids",
        "classes": ["road", "car", "sky"],
        "palette": COLOURS,
        "ids": [[7], [26, 30], [23]],
        "dataset": "x",
    }
    path = tmp_path_factory.mktemp("videos") / "model.keras"
    model.save(path)
    return path


def scene(number, size=(48, 64)):
    """Three stripes whose edge moves: dark, middle and bright."""
    grey = np.full(size, GREYS[0], np.uint8)
    grey[:, 8 + number % 24 :] = GREYS[1]
    grey[:, 44:] = GREYS[2]
    return np.repeat(grey[..., None], 3, -1)


def write_video(path, times, size=(48, 64), codec="libx264", noise=0, aspect=None):
    """A video whose frame k is shown at times[k] milliseconds; noise makes it large."""
    random = np.random.default_rng(0)
    with av.open(path, "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "10", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for k, time in enumerate(times):
            shaken = scene(k, size) + random.integers(-noise, noise + 1, (*size, 3))
            frame = av.VideoFrame.from_ndarray(shaken.astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_video(path):
    """(times in s, frames) of a video, grey ones as (n, H, W)."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    form = "gray" if frames[0].format.name == "gray" else "rgb24"
    return [float(frame.time) for frame in frames], np.stack([frame.to_ndarray(format=form) for frame in frames])


def test_a_video_is_labelled_frame_by_frame(model, tmp_path, call_script):
    times = [40 * k + (k % 3) * 7 for k in range(12)]  # uneven, as phones write them
    path = write_video(tmp_path / "drive.mp4", times)
    kinds = "labels,color,overlay,confidence"
    arguments = (f"--model={model}", f"--images={path}", f"--output={tmp_path}/out", f"--write={kinds}")
    code, out, error = call_script("predict", *arguments, "--batch_size=5")  # of which 12 is no multiple
    assert code == 0, error
    names = ("classes.json", "drive.mkv", "color/drive.mp4", "overlay/drive.mp4", "confidence/drive.mkv")
    assert out.splitlines() == [f"{tmp_path}/out/{name}" for name in names]
    _, photographs = read_video(path)
    expected = [kseg.predict(model, frame, return_confidence=True) for frame in photographs]
    found = {}
    for name in names[1:]:
        seen, found[name] = read_video(tmp_path / "out" / name)
        np.testing.assert_allclose(seen, np.array(times) / 1000, atol=0.001)  # Matroska has milliseconds
    ids = np.stack([labels for labels, _ in expected])
    assert len(np.unique(ids)) == 3
    np.testing.assert_array_equal(found["drive.mkv"], np.array(IDS)[ids])  # to the bit
    np.testing.assert_array_equal(found["confidence/drive.mkv"], np.rint([255 * c for _, c in expected]))
    colours = np.array(COLOURS)[ids]
    inner = np.s_[:, :, 48:]  # away from the edge, which the codec blurs; FFmpeg 7 is off by 14, 8 by less than 12
    assert np.abs(found["color/drive.mp4"].astype(int) - colours)[inner].max() < 16
    mixed = (photographs + colours + 1) // 2
    assert np.abs(found["overlay/drive.mp4"].astype(int) - mixed)[inner].max() < 16
    inputs = list_images([str(tmp_path)])
    assert [name for _, name in inputs.images] == ["drive"]
    assert inputs.notes[0].startswith("Left out: 4 files that kseg wrote (")
    code, _, error = call_script("predict", *arguments)
    assert code == 2 and "videos are not replaced" in error


def test_a_phones_video_is_labelled_upright(model, tmp_path):
    path = write_video(tmp_path / "phone.mp4", range(0, 200, 40))
    data = path.read_bytes()
    assert data.count(UPRIGHT, data.index(b"tkhd")) >= 1
    at = data.index(UPRIGHT, data.index(b"tkhd"))
    path.write_bytes(data[:at] + TURNED + data[at + len(UPRIGHT) :])
    (labels,) = predict_files(model, [path], tmp_path / "out")
    ids = read_video(labels)[1]
    assert ids.shape == (5, 64, 48)
    # The dark stripe on the left becomes the top, the bright one on the right the bottom.
    assert (ids[:, :6] == IDS[0]).all() and (ids[:, -16:] == IDS[2]).all()


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_wider_than_high_stay_so(turned, model, tmp_path):
    path = write_video(tmp_path / "wide.mp4", range(0, 200, 40), aspect=Fraction(2, 1))
    if turned:
        data = path.read_bytes()
        at = data.index(UPRIGHT, data.index(b"tkhd"))
        path.write_bytes(data[:at] + TURNED + data[at + len(UPRIGHT) :])
    predict_files(model, [path], tmp_path / "out", wanted=Wanted(("color", "overlay")))
    for kind in ("color", "overlay"):
        with av.open(str(tmp_path / "out" / kind / "wide.mp4")) as container:
            assert container.streams.video[0].sample_aspect_ratio == (Fraction(1, 2) if turned else 2)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "hole.mkv"])
def test_a_damaged_video_is_labelled_as_far_as_it_goes(name, model, tmp_path):
    whole = write_video(tmp_path / f"whole.{name[-3:]}", range(0, 2400, 40), noise=20)
    data = whole.read_bytes()
    cut = data[: len(data) * 6 // 10]
    if name.startswith("hole"):
        cut = data[: len(data) // 2] + bytes(1000) + data[len(data) // 2 + 1000 :]
    path = tmp_path / name
    path.write_bytes(cut)
    with pytest.raises(DamagedInputError, match=r"1 of 2 inputs cannot be read.*\n.*frames were labelled") as caught:
        predict_files(model, [path, whole], tmp_path / "out")
    count = len(read_video(tmp_path / "out" / f"{path.stem}.mkv")[0])
    assert f"{count} of 60 frames were labelled" in str(caught.value)
    if name.startswith("hole"):
        assert 40 < count < 60  # those after the hole too
    else:
        assert 20 < count < 45
    assert len(read_video(tmp_path / "out" / "whole.mkv")[0]) == 60


def test_frames_that_the_container_lost_are_missed(tmp_path):
    """A codec whose frames stand alone: no frame is damaged, some are gone. A phone's pauses are no fault."""
    whole = write_video(tmp_path / "whole.mkv", range(0, 1600, 40), codec="ffv1", noise=20)
    data = bytearray(whole.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    (tmp_path / "hole.mkv").write_bytes(data)
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 98 // 100])  # less than half a second is lost
    write_video(tmp_path / "pauses.mkv", [0, 40, 80, 2000, 2040, 9000], codec="ffv1")
    problems = {}
    for name in ("hole", "cut", "whole", "pauses"):
        with VideoReader(tmp_path / f"{name}.mkv") as video:
            count = sum(1 for _ in video.read())
            problems[name] = video.problem
    assert problems["whole"] == problems["pauses"] == ""
    found = re.search(r"frames between (\d\.\d) and (\d\.\d) s are lost; (\d+) of 40 frames", problems["hole"])
    assert found and float(found[1]) < float(found[2]) and 25 < int(found[3]) < 40
    assert re.search(r"it ends after 1\.\d of 1\.6 s", problems["cut"])
    assert count == 6


def test_what_is_no_video_is_left_out(model, tmp_path, call_script):
    write_video(tmp_path / "p.mp4", [0, 40])
    (tmp_path / "a.mp4").write_text("no video")
    with av.open(tmp_path / "sound.mkv", "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for name in ("a.mp4", "sound.mkv"):
        with pytest.raises(InputError, match=f"{name}: damaged or not a video"):
            VideoReader(tmp_path / name)
    code, out, error = call_script("predict", f"--model={model}", f"--images={tmp_path}", f"--output={tmp_path}-out")
    assert code == 1 and "2 of 3 inputs cannot be read" in error
    assert out.splitlines() == [f"{tmp_path}-out/{name}" for name in ("classes.json", "p.mkv", "color/p.mp4")]


def test_videos_of_odd_sides_keep_their_size(tmp_path):
    from kseg.inference.videos import writing_video

    picture = np.zeros((33, 47, 3), np.uint8)
    picture[10:] = (0, 0, 200)
    with writing_video(tmp_path / "odd.mp4", 25, Fraction(1, 25), "overlay") as write:
        write(picture, 0, 1)
        write(picture, 1, 1)
    found = read_video(tmp_path / "odd.mp4")[1]
    assert found.shape == (2, 33, 47, 3)
    for rows in (slice(0, 6), slice(16, None)):  # away from the edge
        assert np.abs(found.astype(int) - picture)[:, rows].max() < 12


def test_without_pyav_one_line_says_what_to_install(model, tmp_path, monkeypatch):
    write_video(tmp_path / "p.mp4", [0])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"p.mp4: videos need PyAV: pip install 'kseg\[video\]'. Or leave the video"):
        predict_files(model, [tmp_path / "p.mp4"], tmp_path / "out")
