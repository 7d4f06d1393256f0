"""docs/reference/encoders.md: that its table is what the code gives."""

import pytest

from benchmarks import encoder_table
from kseg.models.backbones import ENCODERS


def _rows(root):
    lines = (root / "docs" / "reference" / "encoders.md").read_text().splitlines()
    return [line for line in lines if line.startswith("|")]


def test_the_page_names_every_encoder(root):
    rows = _rows(root)
    assert "\n".join(rows[:2]) == encoder_table.HEAD
    assert [row.split("`")[1] for row in rows[2:]] == list(ENCODERS)


FAST = ("vgg16", "efficientnet_lite0")


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ENCODERS]
)
def test_a_row_is_what_the_code_gives(name, root):
    assert encoder_table.row(name) in _rows(root)
