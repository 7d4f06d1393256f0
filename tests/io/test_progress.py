"""Progress as text: whole lines where there is no terminal, and the pace of an epoch."""

import threading

import pytest

from kseg.io import progress
from kseg.training import logs


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


def test_the_pace_of_an_epoch():
    clock = Clock()
    epoch = logs.EpochClock(clock)
    clock.now = 10
    epoch.stop_steps()
    clock.now = 12  # two seconds of validation
    assert epoch.rate(50) == 5  # images per second of training
    assert epoch.left(steps=4, remaining=20) == "01:00"  # (12 s / 4) for each of 20


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


def test_what_is_waited_for_counts_in_place_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    clock = Clock()
    with progress.Waiting("compiling", clock) as waiting:
        wait_for(2, clock, waiting)
    shown = ["", "compiling", "compiling, 1 s", "compiling, 2 s", "compiling, done after 2 s\n"]
    assert capsys.readouterr().err == "\r".join(shown)
    with pytest.raises(KeyError), progress.Waiting("compiling", clock):
        raise KeyError
    assert capsys.readouterr().err == "\rcompiling\n"  # what comes next begins a line


def test_the_seconds_pass_by_themselves(monkeypatch):
    """While the program is somewhere else: the context ends when a tick has come."""
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.001)
    ticked = threading.Event()
    waiting = progress.Waiting("compiling")
    monkeypatch.setattr(waiting, "tick", ticked.set)
    with waiting:
        assert ticked.wait(60)
    assert not waiting._thread.is_alive()
