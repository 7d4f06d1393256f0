"""config.pbtxt, read back by Triton's own schema."""

import json

import pytest
from google.protobuf import text_format

from kseg.export.triton import triton_config
from kseg.io.errors import InputError

LABELS = {"name": "train_ids", "classes": ['a "b"\\', "Straße"], "palette": [(1, 2, 3), (255, 0, 9)]}


def test_triton_reads_what_the_export_takes_and_gives():
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient: kseg[test]")
    config = text_format.Parse(triton_config("unet-2", LABELS), schema.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("unet-2", "onnxruntime", 0)
    shapes = {
        one.name: (schema.DataType.Name(one.data_type), list(one.dims)) for one in [*config.input, *config.output]
    }
    assert shapes == {
        "images": ("TYPE_UINT8", [-1, -1, -1, 3]),
        "labels": ("TYPE_UINT8", [-1, -1, -1]),
        "confidence": ("TYPE_FP32", [-1, -1, -1]),
    }
    assert [one.name for one in config.input] == ["images"]
    said = {key: value.string_value for key, value in config.parameters.items()}
    assert said["label_set"] == "train_ids" and json.loads(said["classes"]) == LABELS["classes"]
    assert json.loads(said["palette"]) == [[1, 2, 3], [255, 0, 9]]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", 'a"', "a b", None])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(InputError, match="name must be letters"):
        triton_config(name, LABELS)
