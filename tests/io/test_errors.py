"""What an error of kseg's is to Python, and what it says."""

import shutil

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


def test_of_many_files_that_cannot_be_copied_the_first_is_said(tmp_path):
    failed = [("a", "b", "[Errno 28] No space left on device: 'b'"), ("c", "d", "[Errno 28] another")]
    with pytest.raises(errors.FileAccessError) as caught, writing(tmp_path / "model"):
        raise shutil.Error(failed)
    text = f"Cannot write {tmp_path}/model: [Errno 28] No space left on device: 'b'. Earlier files are intact"
    assert str(caught.value).startswith(text)


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


MESSAGES = [  # as the code writes it, in Python, in a command with these flags
    ("Give --epochs or --train_steps.", "Give epochs or train_steps.", "Give --epochs or --train_steps."),
    ("batch_size must be 4, got 3.", "batch_size must be 4, got 3.", "--batch_size must be 4, got 3."),
    ("No loss: loss must be one.", "No loss: loss must be one.", "No loss: loss must be one."),
    ("loss must be one of a, b.", "loss must be one of a, b.", "--loss must be one of a, b."),
    ("Got epochs=0. The loss fell.", "Got epochs=0. The loss fell.", "Got --epochs=0. The loss fell."),
    # Paths, quoted values, Python's own names and what is typed into a shell are left.
    ("No file a--epochs/x_loss.", "No file a--epochs/x_loss.", "No file a--epochs/x_loss."),
    ("got '--loss', {'batch_size': 3}", "got '--loss', {'batch_size': 3}", "got '--loss', {'batch_size': 3}"),
    ("call x.batch_size()", "call x.batch_size()", "call x.batch_size()"),
    ("Run:\nkseg train --epochs=3", "Run:\nkseg train --epochs=3", "Run:\nkseg train --epochs=3"),
    ("(predict --tile)", "(predict --tile)", "(predict --tile)"),
]


@pytest.mark.parametrize(("written", "in_python", "in_a_command"), MESSAGES)
def test_messages_name_settings_as_the_reader_writes_them(written, in_python, in_a_command):
    for error in (errors.InputError(written), errors.MissingFileError(written), errors.FileAccessError(written)):
        assert str(error) == in_python
        with errors.speaking_flags(["epochs", "train_steps", "batch_size", "loss"]):
            assert str(error) == in_a_command
        assert str(error) == in_python


def test_python_is_told_of_the_function_that_prepares_records_and_a_shell_of_the_command():
    text = "Make one with kseg prepare."
    in_python = "Make one with kseg.prepare_dataset or kseg prepare."
    error = errors.InputError(text)
    assert str(error) == in_python
    assert str(errors.error_in("a", error)) == f"a: {in_python}"  # said once, however often it is passed on
    typed = "Type:\nkseg prepare --dataset=folder --source=a"
    assert str(errors.InputError(typed)) == typed
    with errors.speaking_flags(["data_dir"]):
        assert str(error) == text
