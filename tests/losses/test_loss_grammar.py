"""What `--loss` and `--class_weights` may say, and how settings and flags pass it on."""

import re

import keras
import numpy as np
import pytest

from kseg.losses import SegmentationLoss
from kseg.settings import LOSSES, Loss, make_settings, parse_class_weights, parse_loss


def test_sums_are_read():
    assert parse_loss("dice") == [(1.0, "dice")]
    assert parse_loss("cross_entropy + 0.5*dice+1e-3 * lovasz_softmax") == [
        (1.0, "cross_entropy"),
        (0.5, "dice"),
        (0.001, "lovasz_softmax"),
    ]
    assert parse_class_weights("1, 2,.5,0") == [1, 2, 0.5, 0] and parse_class_weights("none") == "none"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "cross_entropy+hinge"}, "'hinge' is not valid"),
        ({"loss": "cross_entropy+"}, "got 'cross_entropy\\+': '' is not valid"),
        ({"loss": "0*dice"}, "factors above 0"),
        ({"loss": "-1*dice"}, "factors above 0"),
        ({"loss": "nan*dice"}, "factors above 0"),
        ({"loss": "half*dice"}, "'half\\*dice' is not valid"),
        ({"loss": "dice+2*dice"}, "each loss once"),
        (
            {"loss": "dice+lovasz_softmax", "class_weights": "1,2,3"},
            "class_weights has no effect with loss dice",
        ),
        ({"focal_gamma": 1.0}, "focal_gamma has no effect with loss cross_entropy: add focal, or leave"),
        ({"loss": "focal", "top_k_share": 0.5}, "top_k_share has no effect"),
        ({"loss": "focal", "focal_gamma": float("inf")}, "focal_gamma must be a finite number"),
        ({"loss": "focal", "focal_gamma": -1.0}, "focal_gamma must be at least 0"),
        ({"loss": "top_k_cross_entropy", "top_k_share": 0.0}, "top_k_share must be above 0"),
        ({"loss": "top_k_cross_entropy", "top_k_share": 1.5}, "at most 1, got 1.5"),
        ({"class_weights": "inverse"}, "none, median_frequency, inverse_sqrt_frequency, or text"),
        ({"class_weights": "1,-2"}, "got '1,-2'"),
        ({"class_weights": "0,0"}, "not all 0"),
        ({"class_weights": "1,nan"}, "got '1,nan'"),
        ({"class_weights": [1, 2]}, "class_weights must be text such as '1,2,0.5', got \\[1, 2\\]"),
    ],
)
def test_what_has_no_meaning_is_one_clear_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        make_settings(epochs=1, **settings)
    assert "\n" not in str(error.value)


def wrong_pixels(labels, logits, share, ignore_label=255):
    """A loss as one writes it, though without a gradient: so many times the valid pixels whose class is another."""
    labels = keras.ops.cast(labels, "int32")
    wrong = (keras.ops.cast(keras.ops.argmax(logits, -1), "int32") != labels) & (labels != ignore_label)
    return share * keras.ops.sum(keras.ops.cast(wrong, "float32"))


def test_a_new_loss_is_one_entry(monkeypatch):
    count = "kseg.losses.functional:valid_pixels"
    entry = Loss(f"{__name__}:wrong_pixels", count, {"share": "top_k_share"}, "share of the wrong pixels")
    monkeypatch.setitem(LOSSES, "wrong", entry)
    labels = np.array([[[0, 1, 1, 255, 0]]])
    logits = np.eye(2, dtype="float32")[[[[0, 1, 0, 0, 1]]]]  # the classes 0, 1, 0, -, 1: two of four are wrong
    assert float(SegmentationLoss("wrong", top_k_share=0.5)(labels, logits)) == 0.5 * 2 / 4
    plain = float(SegmentationLoss("cross_entropy")(labels, logits))
    assert float(SegmentationLoss("cross_entropy+4*wrong")(labels, logits)) == pytest.approx(plain + 4 * 0.2 * 2 / 4)
    assert make_settings(epochs=1, loss="2*wrong", top_k_share=0.5).loss == "2*wrong"  # the option has a loss
    with pytest.raises(ValueError, match="of cross_entropy, .*, lovasz_softmax, wrong, with factors above 0"):
        make_settings(epochs=1, loss="hinge")
    with pytest.raises(ValueError, match="class_weights has no effect with loss wrong: add cross_entropy or focal or"):
        make_settings(epochs=1, loss="wrong", class_weights="1,2")


def test_the_page_has_a_row_for_every_loss(root):
    page = (root / "docs" / "reference" / "losses.md").read_text(encoding="utf-8")
    text = page.partition("| in `--loss` | |\n| --- | --- |\n")[2].partition("\n\n")[0]
    assert dict(re.findall(r"\| `(\w+)` \| (.*) \|", text)) == {name: loss.help for name, loss in LOSSES.items()}
