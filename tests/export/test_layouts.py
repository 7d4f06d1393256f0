"""Exports as TensorFlow Serving and Triton take them, and as kseg takes them back."""

import shutil

import numpy as np
import pytest
import tiny
from test_exports import smooth

import kseg
from kseg.export import export_model
from kseg.export.proof_images import ProofImages
from kseg.inference.model_paths import model_files
from kseg.inference.outside.file_kinds import model_in
from kseg.serving.served_model import ServedModel


@pytest.fixture(scope="module")
def model():
    """Of classes whose names no encoding but UTF-8 has."""
    model = tiny.brightness_model()
    model.layers[1].label_set = {**tiny.LABELS, "classes": ["Straße", 'a "car"', "sky"]}
    return model


def write(model, path, format, layout="server"):
    images = ProofImages("2 test images", [(f"image {i}", image) for i, image in enumerate(smooth(2))])
    return export_model.export_model(model, path, format=format, layout=layout, images=images, quick=True)


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return {format: write(model, folder / f"street-{format}", format) for format in ("savedmodel", "onnx")}


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_tensorflow_serving_finds_a_version(folders, model):
    import tensorflow as tf

    folder = folders["savedmodel"]
    texts = ["README.md", "classes.json", "report.json"]
    inner = ["fingerprint.pb", "saved_model.pb", "variables/variables.data-00000-of-00001", "variables/variables.index"]
    assert files_in(folder) == sorted(texts + [f"1/{name}" for name in texts + inner])
    loaded = tf.saved_model.load(str(folder / "1"))
    image = smooth(1)[0]
    found = loaded.signatures["serving_default"](images=tf.constant(image[None]))
    np.testing.assert_array_equal(found["labels"][0], kseg.predict(model, image))


def test_triton_reads_a_repository_whose_configuration_is_that_of_the_file(folders):
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient: kseg[test]")
    import onnx
    from google.protobuf import text_format

    folder = folders["onnx"]
    name = "street-onnx"
    texts = ["README.md", "classes.json", "report.json"]
    assert files_in(folder) == sorted([*texts, f"{name}/config.pbtxt", f"{name}/1/model.onnx"])
    text = (folder / name / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, schema.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == (name, "onnxruntime", 0)  # the folder's own name
    graph = onnx.load(str(folder / name / "1" / "model.onnx")).graph
    types = {onnx.TensorProto.UINT8: "TYPE_UINT8", onnx.TensorProto.FLOAT: "TYPE_FP32"}

    def of_file(tensor):
        dims = tensor.type.tensor_type.shape.dim
        return types[tensor.type.tensor_type.elem_type], [
            dim.dim_value if dim.HasField("dim_value") else -1 for dim in dims
        ]

    def of_config(tensor):
        return schema.DataType.Name(tensor.data_type), list(tensor.dims)

    # Triton asks for all inputs, and for outputs of the file, of exactly these shapes.
    assert {one.name: of_config(one) for one in config.input} == {one.name: of_file(one) for one in graph.input}
    outputs = {one.name: of_file(one) for one in graph.output}
    assert {one.name: of_config(one) for one in config.output} == {
        name: outputs[name] for name in ("labels", "confidence")
    }
    assert set(outputs) == {"labels", "confidence", "probabilities"} and outputs["probabilities"][1][-1] == 3


@pytest.mark.parametrize("format", ["savedmodel", "onnx"])
def test_kseg_takes_the_folder_as_it_takes_the_model(format, folders, model, records, tmp_path, monkeypatch):
    folder = folders[format]
    image = smooth(1)[0]
    inner = model_in(folder)
    assert inner == {"savedmodel": folder / "1", "onnx": folder / "street-onnx" / "1" / "model.onnx"}[format]
    for path in (folder, inner, inner.parent if format == "savedmodel" else inner.parent.parent):
        np.testing.assert_array_equal(kseg.predict(path, image), kseg.predict(model, image))
    assert ServedModel(folder, "street").outputs == ("labels", "confidence")
    with pytest.raises(kseg.InputError, match="lies in the input"):
        kseg.compare({"a": folder, "b": inner}, records, folder / "page")
    assert folder in model_files(folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(folder))
    np.testing.assert_array_equal(kseg.predict("hf://somebody/street", image), kseg.predict(model, image))


def test_evaluate_and_compare_take_both_and_a_tflite_file_beside_the_model(records, tmp_path):
    model = tiny.brightness_model()
    model.layers[1].label_set = tiny.LABELS
    paths = {format: write(model, tmp_path / format, format) for format in ("savedmodel", "onnx")}
    paths["litert"] = write(model, tmp_path / "model.tflite", "litert", layout="plain")
    own = kseg.evaluate(model, records).confusion_matrix
    found = kseg.compare({"own": model, **paths}, records, tmp_path / "page")
    for scores in found.scores:
        np.testing.assert_array_equal(scores.confusion_matrix, own)
    reads = ["Keras", "SavedModel", "ONNX from kseg", "TFLite from kseg"]
    assert [one["reads"] for one in found.table["models"]] == reads


def test_the_highest_version_is_the_model(folders, tmp_path):
    for format, folder in folders.items():
        copy = tmp_path / folder.name
        shutil.copytree(folder, copy)
        inner = model_in(copy)
        version = inner if format == "savedmodel" else inner.parent
        shutil.copytree(version, version.with_name("10"))
        shutil.copytree(version, version.with_name("9"))
        assert "10" in model_in(copy).relative_to(copy).parts
    assert model_in(tmp_path) == tmp_path  # of two models none is the one


def test_an_earlier_export_is_replaced_and_nothing_else(model, tmp_path):
    folder = tmp_path / "street"
    write(model, folder, "savedmodel", layout="plain")
    card = folder / "README.md"
    card.write_text("my own words\n")
    write(model, folder, "savedmodel")
    assert (folder / "1" / "saved_model.pb").exists() and not (folder / "saved_model.pb").exists()
    assert card.read_text() == "my own words\n"
    (folder / "1" / "notes.txt").write_text("mine")
    with pytest.raises(kseg.InputError, match=r"holds 1/notes.txt, which kseg did not write"):
        write(model, folder, "savedmodel")
    with pytest.raises(kseg.InputError, match="which kseg did not write"):
        write(model, folder, "onnx")


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("a b", "onnx", "name must be letters, digits"),
        ("a.onnx", "onnx", r"Format onnx writes a folder, whose name must not end in \.onnx"),
        ("a", "litert", r"No server takes format litert .* savedmodel \(TensorFlow Serving\), onnx \(Triton"),
        ("a", "web", "No server takes format web"),
    ],
)
def test_what_no_server_takes_is_refused(name, format, message, model, tmp_path):
    with pytest.raises(kseg.InputError, match=message):
        write(model, tmp_path / name, format)
    with pytest.raises(kseg.InputError, match="layout must be one of plain, server"):
        write(model, tmp_path / "a", "onnx", layout="triton")
    assert not list(tmp_path.iterdir())


def test_a_single_file_beside_a_readme_is_the_model_of_its_folder(model, tmp_path):
    """As people share one on the Hub. Two files, or a run's own, say nothing of which is meant."""
    image = smooth(1)[0]
    expected = kseg.predict(model, image)
    onnx = write(model, tmp_path / "model.onnx", "onnx", layout="plain")
    model.save(tmp_path / "model.keras")
    for name in ("model.onnx", "model.keras"):
        folder = tmp_path / f"shared-{name}"
        folder.mkdir()
        (folder / "README.md").write_text("streets")
        shutil.copy(tmp_path / name, folder)
        assert model_in(folder) == folder / name
        np.testing.assert_array_equal(kseg.predict(folder, image), expected)
    shutil.copy(onnx, tmp_path / "shared-model.onnx" / "again.onnx")
    assert model_in(tmp_path / "shared-model.onnx") == tmp_path / "shared-model.onnx"
