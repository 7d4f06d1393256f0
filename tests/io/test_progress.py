"""Progress as text: whole lines where there is no terminal, and the pace of an epoch."""

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
