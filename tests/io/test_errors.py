"""What an error of kseg's is to Python, and what it says."""

import pytest

from kseg.io import errors
from kseg.io.files import writing


def test_a_file_that_cannot_be_written_keeps_its_number_and_says_its_text(tmp_path):
    with pytest.raises(OSError) as caught, writing(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    error = caught.value
    assert isinstance(error, errors.InputError) and error.errno == 28
    assert f"Cannot write {tmp_path}/a: No space left on device" in str(error) and "('" not in str(error)


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
