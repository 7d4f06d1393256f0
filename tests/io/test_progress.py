"""Progress as text: whole lines where there is no terminal, and the pace of an epoch."""

import io
import os
import struct
import threading

import pytest

from kseg.io import progress
from kseg.training import screen


class Clock:
    """Seconds that pass when the test says so."""

    now = 0.0

    def __call__(self):
        return self.now


def test_a_file_gets_whole_lines_at_intervals(capsys):
    clock = Clock()
    with progress.ProgressLines("epoch 2/3", 100, done=20, clock=clock) as lines:
        for _ in range(40):  # two images a second, 40 seconds
            clock.now += 1
            lines.set_postfix({"loss": "1.250"}, refresh=False)
            lines.update(2)
    out, err = capsys.readouterr()
    assert out == "" and "\r" not in err and err.endswith("\n")
    assert err.splitlines() == [
        "epoch 2/3: 80/100 images, 2/s, 00:10 left, loss 1.250",  # after 30 seconds, 20 images are left
        "epoch 2/3: 100/100 images, 2/s, 00:40 in all, loss 1.250",
    ]


def test_nothing_is_written_of_what_did_not_end_or_did_not_begin(capsys):
    with pytest.raises(KeyError), progress.ProgressLines("a", 3, clock=Clock()) as lines:
        lines.update()
        raise KeyError
    with progress.ProgressLines("b", 3, done=3, clock=Clock()):
        pass
    assert capsys.readouterr().err == ""


def test_a_bar_that_does_not_stay_leaves_no_last_line(capsys):
    clock = Clock()
    with progress.ProgressLines("epoch 1/3", 4, clock=clock, stays=False) as lines:
        clock.now = 29
        lines.update(4)
    assert capsys.readouterr().err == ""


def test_a_count_without_a_known_total(capsys):
    clock = Clock()
    with progress.ProgressLines("draw", None, unit="streets", clock=clock) as lines:
        clock.now = 31
        lines.update(62)
    first, last = capsys.readouterr().err.splitlines()
    assert first == "draw: 62 streets, 2/s" and last.startswith("draw: 62 streets, 2/s, 00:31 in all")


@pytest.mark.parametrize(("terminal", "kind"), [(True, "tqdm"), (False, "ProgressLines")])
def test_a_terminal_gets_a_bar(terminal, kind, monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: terminal)
    bar = progress.progress_bar("x", 4)
    assert type(bar).__name__ == kind
    with bar:
        bar.set_postfix({"loss": 1}, refresh=False)
        bar.update(4)
        assert bar.n == bar.total == 4


@pytest.mark.parametrize(("rows", "kind"), [(0, "ProgressLines"), (24, "tqdm")])
def test_a_terminal_without_rows_gets_lines(rows, kind, monkeypatch):
    """As a program's pseudo-terminal is: tqdm would draw nothing on it."""
    pty = pytest.importorskip("pty", reason="Windows has no pseudo-terminals")
    fcntl, termios = (pytest.importorskip(name) for name in ("fcntl", "termios"))
    ends = pty.openpty()
    fcntl.ioctl(ends[1], termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
    with open(ends[1], "w") as terminal:
        monkeypatch.setattr(progress.sys, "stderr", terminal)
        assert terminal.isatty() and type(progress.progress_bar("x", 4)).__name__ == kind
    os.close(ends[0])


def test_the_time_of_a_first_update_that_compiles_is_not_counted(capsys):
    clock = Clock()
    with progress.ProgressLines("predict", 100, clock=clock, warm=True) as lines:
        clock.now = 60  # of which the first image has taken nearly all
        lines.update(1)
        for _ in range(62):
            clock.now += 0.5
            lines.update(1)
        clock.now += 9
    written = capsys.readouterr().err.splitlines()
    assert written == [
        "predict: 1/100 images",
        "predict: 61/100 images, 2/s, 00:19 left",  # 60 in 30 s, 39 to go
        "predict: 63/100 images, 0.63/s, 01:40 in all",  # the whole: 63 in 100 s
    ]


def test_a_single_update_that_compiles_has_a_last_line(capsys):
    clock = Clock()
    with progress.ProgressLines("predict", 4, clock=clock, warm=True) as lines:
        clock.now = 8
        lines.update(4)
    assert capsys.readouterr().err == "predict: 4/4 images, 0.5/s, 00:08 in all\n"


def test_a_bar_begins_its_clock_after_such_an_update(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with progress.progress_bar("predict", 100, warm=True) as bar:
        begin = bar.start_t
        bar._time = lambda: begin + 60
        bar.update(1)
        bar._time = lambda: begin + 90
        bar.update(60)
        shown = bar.format_dict
        assert (shown["n"], shown["initial"], shown["elapsed"], shown["rate"]) == (61, 1, 30, None)  # 60 in 30 s
        bar._time = lambda: begin + 122
    last = capsys.readouterr().err.split("\r")[-1]
    assert "61/100 [02:02<" in last and "2.00s/ images]" in last  # the whole: 122 s for 61


def test_the_pace_of_an_epoch():
    clock = Clock()
    epoch = screen.EpochClock(clock)
    clock.now = 10
    epoch.stop_steps()
    with epoch.stopped():
        clock.now = 13  # compiling what scores
    clock.now = 15
    assert epoch.rate(50) == 5  # images per second of training
    assert epoch.step_seconds(4) == 2.5 and epoch.end_seconds() == 2


def test_durations_read_as_a_person_says_them():
    found = [screen.duration(seconds) for seconds in (0.4, 99, 100, 59 * 60, 100 * 60, 9.5 * 3600, 49 * 3600)]
    assert found == ["1 s", "99 s", "2 min", "59 min", "1 h 40 min", "9 h 30 min", "49 h"]


def test_the_line_of_an_epoch_marks_the_best():
    row = {"epoch": 2, "loss": 1.5, "mean_iou": 0.25, "val_mean_iou": 0.125, "val_f1": 0.5}
    line = screen.epoch_line("epoch 2/3", row, "val_mean_iou", True, ["5 images/s"])
    assert line == "epoch 2/3: loss 1.5000, mean IoU 0.2500 training, 0.1250 validation (best), 5 images/s"
    line = screen.epoch_line("epoch 2/3", row, "loss", True, [])
    assert line == "epoch 2/3: loss 1.5000 (best), mean IoU 0.2500 training, 0.1250 validation"
    line = screen.epoch_line("epoch 2/3", row, "val_f1", False, [])
    assert line.endswith("0.1250 validation, validation F1, macro 0.5000")
    line = screen.epoch_line("epoch 2/3", {"loss": 1.5, "mean_iou": 0.25}, "val_f1", False, [])
    assert line == "epoch 2/3: loss 1.5000, mean IoU 0.2500 training"  # not scored


def test_a_warm_up_as_long_as_the_run_is_warned_of(capsys):
    for warmup_steps in (0, 9):
        screen.warn_of_warmup(warmup_steps, 10)
    assert capsys.readouterr().out == ""
    screen.warn_of_warmup(30, 10)
    assert "30 steps and the whole run 10" in (said := capsys.readouterr().out) and "33% of learning_rate" in said


def wait_for(seconds, clock, waiting):
    """Let the clock go on, a tick each second."""
    for _ in range(seconds):
        clock.now += 1
        waiting.tick()


def test_what_is_waited_for_is_said_in_lines_where_there_is_no_terminal(capsys):
    clock = Clock()
    with progress.Waiting("epoch 1/3: compiling", clock) as waiting:
        assert capsys.readouterr().err == "epoch 1/3: compiling\n"  # at once
        wait_for(65, clock, waiting)
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [
        "epoch 1/3: compiling, 30 s",
        "epoch 1/3: compiling, 60 s",
        "epoch 1/3: compiling, done after 65 s",
    ]


def test_a_wait_can_begin_with_silence_where_there_is_no_terminal(capsys):
    clock = Clock()
    with progress.Waiting("drawing", clock, after=5) as waiting:
        wait_for(4, clock, waiting)
    assert capsys.readouterr().err == ""
    with progress.Waiting("drawing", clock, after=5) as waiting:
        wait_for(31, clock, waiting)
    assert capsys.readouterr().err.splitlines() == ["drawing", "drawing, 30 s", "drawing, done after 31 s"]


def test_a_line_stands_above_what_is_waited_for(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    with progress.Waiting("building", Clock()):
        progress.say("26 layers loaded")
    out, err = capsys.readouterr()
    assert out == "26 layers loaded\n"
    assert err == "\r\x1b[Kbuilding\r\x1b[K\r\x1b[K"  # emptied before that line, and at the end


def test_what_took_less_than_a_line_has_one_line(capsys):
    clock = Clock()
    with progress.Waiting("scoring", clock) as waiting:
        wait_for(29, clock, waiting)
    assert capsys.readouterr().err == "scoring\n"
    with progress.Waiting("scoring", clock, shown=False):
        pass
    assert capsys.readouterr().err == ""


def test_what_is_waited_for_counts_in_place_on_a_terminal_and_is_gone_at_the_end(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    clock = Clock()
    with progress.Waiting("compiling", clock) as waiting:
        wait_for(2, clock, waiting)
    erase = "\r\x1b[K"
    expected = "".join(erase + text for text in ("compiling", "compiling, 1 s", "compiling, 2 s", ""))
    assert capsys.readouterr().err == expected
    with pytest.raises(KeyError), progress.Waiting("compiling", clock):
        raise KeyError
    assert capsys.readouterr().err == f"{erase}compiling{erase}"  # what comes next begins a line


def test_what_is_waited_for_can_be_said_elsewhere(capsys):
    stream = io.StringIO()
    with progress.shown_on(stream), progress.Waiting("loading", Clock()):
        pass
    assert stream.getvalue() == "loading\n" and capsys.readouterr().err == ""


def test_the_seconds_pass_by_themselves(monkeypatch):
    """While the program is somewhere else: the context ends when a tick has come."""
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.001)
    ticked = threading.Event()
    waiting = progress.Waiting("compiling")
    monkeypatch.setattr(waiting, "tick", ticked.set)
    with waiting:
        assert ticked.wait(60)
    assert not waiting._thread.is_alive()


@pytest.mark.parametrize(("backend", "said"), [(None, "loading TensorFlow\n"), ("jax", "loading JAX\n")])
def test_the_import_of_keras_is_said_once(backend, said, monkeypatch, capsys):
    hooks = []
    monkeypatch.setattr(progress, "around_import", lambda name, context: hooks.append((name, context)))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if backend:
        monkeypatch.setenv("KERAS_BACKEND", backend)
    progress.announce_keras.cache_clear()
    for _ in range(2):  # a command, and what it calls
        progress.announce_keras()
    progress.announce_keras.cache_clear()
    ((name, context),) = hooks
    assert name == "keras"
    with context():
        pass
    assert capsys.readouterr().err == said
