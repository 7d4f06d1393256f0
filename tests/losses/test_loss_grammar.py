"""What `--loss` and `--class_weights` may say, and how settings and flags pass it on."""

import pytest

from kseg.settings import make_settings, parse_class_weights, parse_loss


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
        ({"loss": "cross_entropy+hinge"}, "'hinge' is none"),
        ({"loss": "cross_entropy+"}, "got 'cross_entropy\\+': '' is none"),
        ({"loss": "0*dice"}, "factors above 0"),
        ({"loss": "-1*dice"}, "factors above 0"),
        ({"loss": "nan*dice"}, "factors above 0"),
        ({"loss": "half*dice"}, "'half\\*dice' is none"),
        ({"loss": "dice+2*dice"}, "each loss once"),
        (
            {"loss": "dice+lovasz_softmax", "class_weights": "1,2,3"},
            "class_weights has no meaning with loss dice",
        ),
        ({"focal_gamma": 1.0}, "focal_gamma has no meaning with loss cross_entropy: add focal, or leave"),
        ({"loss": "focal", "top_k_share": 0.5}, "top_k_share has no meaning"),
        ({"loss": "focal", "focal_gamma": float("inf")}, "focal_gamma must be a finite number"),
        ({"loss": "focal", "focal_gamma": -1.0}, "focal_gamma must be at least 0"),
        ({"loss": "top_k_cross_entropy", "top_k_share": 0.0}, "top_k_share must be above 0"),
        ({"loss": "top_k_cross_entropy", "top_k_share": 1.5}, "at most 1, got 1.5"),
        ({"class_weights": "inverse"}, "none, median_frequency, inverse_sqrt_frequency, or text"),
        ({"class_weights": "1,-2"}, "got '1,-2'"),
        ({"class_weights": "0,0"}, "not all 0"),
        ({"class_weights": "1,nan"}, "got '1,nan'"),
        ({"class_weights": [1, 2]}, "class_weights must be text, got \\[1, 2\\]"),
    ],
)
def test_what_has_no_meaning_is_one_clear_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        make_settings(epochs=1, **settings)
    assert "\n" not in str(error.value)
