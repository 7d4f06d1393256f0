"""How messages say things."""

import pytest

from kseg.io.text import error_text


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
