"""How messages say things."""

import pytest

from kseg.io.text import bytes_text, error_text, shown_gap, signed


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError(), "ValueError"),
        (KeyError("..."), "'...'"),
        (ValueError(" ...\n"), "ValueError"),
        (ValueError("no network:\n\n  try again."), "no network: try again"),
        (ValueError("x" * 12), "x" * 10 + " [...]"),
    ],
)
def test_what_a_library_says_is_one_line_without_a_full_stop(error, text):
    assert error_text(error, 10 if "xx" in text else 400) == text


def test_a_zero_has_one_sign():
    assert [signed(value, 2) for value in (-0.004, -0.0, 0.0, 0.004, -0.006, 1.5)] == [*["+0.00"] * 4, "-0.01", "+1.50"]
    assert signed(shown_gap(0.12344, 0.12341, 4), 4) == "+0.0000"


def test_a_small_file_is_not_shown_as_none():
    shown = [bytes_text(count) for count in (16_640_000, 100_000, 99_900, 48_943, 1000)]
    assert shown == ["16.6 MB", "0.1 MB", "99.9 kB", "48.9 kB", "1.0 kB"]
