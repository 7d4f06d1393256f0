"""What an error of kseg's is to Python, and what it says."""

import numpy as np
import pytest

from kseg.io import errors
from kseg.io.files import writing


def test_a_file_that_cannot_be_written_keeps_its_number_and_says_its_text(tmp_path):
    with pytest.raises(OSError) as caught, writing(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    error = caught.value
    assert isinstance(error, errors.InputError) and error.errno == 28
    assert f"Cannot write {tmp_path}/a: No space left on device" in str(error) and "('" not in str(error)


def test_a_whole_number_of_pythons_or_numpys_is_an_int():
    for value in (3, np.int64(3), np.uint8(3)):
        found = errors.check_whole("n", value, 3)
        assert found == 3 and type(found) is int
    for value in (2, True, np.True_, 3.0, np.float32(3), "3", None, np.array([3])):
        with pytest.raises(errors.InputError, match="^n must be a whole number of at least 3, got "):
            errors.check_whole("n", value, 3)


def test_scalars_of_numpy_become_pythons_wherever_they_are():
    found = errors.plain({"a": np.int64(1), "b": [np.float64(0.5), (np.uint8(2), "x")], "c": None, "d": np.True_})
    assert found == {"a": 1, "b": [0.5, (2, "x")], "c": None, "d": True}
    assert [type(part) for part in (found["a"], found["b"][0], found["b"][1][0], found["d"])] == [int, float, int, bool]
    array = np.zeros(2)
    assert errors.plain(array) is array


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (errors.MissingFileError, FileNotFoundError),
        (errors.FileAccessError, OSError),
        (errors.NotFiniteError, FloatingPointError),
        (errors.LostProcessError, ConnectionError),
    ],
)
def test_each_is_an_input_error_a_value_error_and_what_python_calls_it(kind, also):
    error = kind("what is wrong")
    assert isinstance(error, (errors.InputError,)) and isinstance(error, ValueError) and isinstance(error, also)
    assert str(error) == "what is wrong"
