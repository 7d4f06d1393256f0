"""Class ids that are no integers are refused; the message says which of the two arrays has them."""

import numpy as np
import pytest

from kseg.io.errors import InputError
from kseg.metrics.boundaries import checked_pair
from kseg.metrics.confusion import confusion_matrix

IDS = np.array([[0, 1], [1, 2]])


@pytest.mark.parametrize("function", [confusion_matrix, checked_pair])
@pytest.mark.parametrize("name", ["truth", "prediction"])
@pytest.mark.parametrize("value", [1.0, 0.5, np.nan, np.inf])
def test_the_array_without_integers_is_named(function, name, value):
    wrong = IDS.astype(np.float64)
    wrong[0, 0] = value
    with pytest.raises(InputError) as error:
        function(*((wrong, IDS) if name == "truth" else (IDS, wrong)), 3)
    said = str(error.value)
    assert f"got float64 for the {name}." in said and "int64" not in said
    keeps = bool(np.isfinite(value)) and int(value) == value  # then casting changes nothing
    assert ("Cast it" in said) == keeps and ("not all whole numbers" in said) != keeps
