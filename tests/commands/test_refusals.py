"""What can be refused without TensorFlow is refused before it is imported, which takes many seconds."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

from kseg.data.records.manifest import load_manifest
from kseg.runs.workdir import RunFolder, describe
from kseg.settings import MODEL_FILES, make_settings, options_in_source

COMMANDS = """
import contextlib, importlib, io, json, sys
found = []
for name, *arguments in json.loads(sys.argv[1]):
    sys.argv = [name, *arguments]
    said = io.StringIO()
    code = None
    with contextlib.redirect_stderr(said):
        try:
            command = importlib.import_module(f"kseg.commands.{name}_command")
            for flag in command.FLAGS:
                command.FLAGS[flag].unparse()
            command.main()
        except SystemExit as end:
            code = end.code
    found.append([code, said.getvalue()])
print(json.dumps([found, sorted({"keras", "tensorflow"} & set(sys.modules))]))
"""
PYTHON = """
import json, sys
import kseg
found = []
for workdir, settings in json.loads(sys.argv[2]):
    try:
        kseg.train("unet", sys.argv[1], workdir, **settings)
    except kseg.InputError as error:
        found.append(str(error))
print(json.dumps([found, sorted({"keras", "tensorflow"} & set(sys.modules))]))
"""


@pytest.fixture
def run(records, tmp_path):
    """A run of three epochs as its settings and the name of a checkpoint show it."""
    workdir = tmp_path / "run"
    settings = make_settings(epochs=3)
    digest = load_manifest(records).digest
    RunFolder(workdir).open(describe("unet", records, {}, "auto", settings, digest, "tensorflow"))
    (workdir / "checkpoints").mkdir()
    (workdir / "checkpoints" / "step-00000003.npz").touch()
    return workdir


def answers(program, *arguments, folder=None):
    """Run a program in a folder; gives what it found and which frameworks it imported."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    return json.loads(done.stdout)


def test_commands_refuse_before_any_framework_is_imported(records, run, tmp_path, root):
    data = f"--data_dir={records}"
    output = f"--output={tmp_path}/new"
    train = ("train", "--model=unet", data, "--dataset=folder")
    new = f"--workdir={tmp_path}/new"
    old = f"--workdir={run}"
    encoder = (*train, new, "--epochs=1", "--encoder=vgg16")
    (tmp_path / "empty.h5").touch()
    for name in ("whole", "other"):
        with zipfile.ZipFile(tmp_path / f"{name}.keras", "w") as archive:
            archive.writestr("model.weights.h5", b"")
            archive.writestr("config.json", b"{}")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    (tmp_path / "old.keras").write_bytes(b"\x89HDF\r\n\x1a\n and more")
    (run / "notes.json").write_text("{}")
    (tmp_path / "maps").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "maps" / "a.png").touch()
    pair = [str(tmp_path / f"{name}.keras") for name in ("other", "whole")]
    model = f"--model={pair[1]}"
    (tmp_path / "loop").symlink_to("loop")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "classes.json").touch()
    prepare = ("prepare", "--dataset=synthetic")
    with_encoder = [name for name in MODEL_FILES if "encoder" in options_in_source(name)]
    half = tmp_path / "half"  # records of something else, of a process that was killed
    half.mkdir()
    (half / "source.json").write_bytes((records / "source.json").read_bytes())
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    cases = [
        (("evaluate", "--model=no/run", data), "No model at no/run"),
        (("evaluate", f"--model={run}", data), f"The run in {run} has not finished: there is no best.keras yet"),
        (
            ("predict", f"--model={root}/LICENSE", f"--images={root}/docs/pictures", output),
            "not a .keras file",
        ),
        (
            (*train, new, "--epochs=1", f"--init_from={root}/LICENSE"),
            "not a .keras file: it does not begin as one does. Give a run folder or a .keras file.",
        ),
        (
            (*train, new, "--epochs=1", f"--init_from={tmp_path}/maps"),
            "init_from must be a run folder or a .keras file, got",
        ),
        (("evaluate", f"--model={tmp_path}/photos.zip", data), "photos.zip is a zip, but damaged or not a .keras file"),
        (("evaluate", f"--model={tmp_path}/old.keras", data), "old.keras begins as an HDF5 file"),
        (("evaluate", f"--model={records}", data), f"{records} is a record folder: it holds images, and no model"),
        (
            ("evaluate", f"--model={records.parent}/source", data),
            f"{records.parent}/source is a dataset's folder: it holds images and labels, and no model. Give",
        ),
        (("evaluate", f"--model={run.parent}", data), f"Give one of the runs in it, such as {run}."),
        (("evaluate", f"--model={run}/notes.json", data), f"Give the folder of the run, {run}."),
        (("evaluate", f"--model={run},", data), "--model has a comma too many"),
        (("evaluate", f"{model},{pair[1]}", data, f"{output}.json"), "Models of an ensemble must differ, but"),
        (
            ("predict", f"{model},{pair[1]}", f"--images={root}/docs/pictures", output),
            f"Models of an ensemble must differ, but {pair[1]} was given twice",
        ),
        (
            ("predict", f"--model={tmp_path}/maps", f"--images={root}/docs/pictures", output),
            "it is a folder of label maps, which has predictions of its own images and of no others",
        ),
        (
            ("predict", model, f"--images={root}/docs/pictures", f"--output={run}"),
            f"Runs must stay as they are, but the output {run} is one.",
        ),
        (
            ("predict", model, f"--images={root}/docs/pictures", "--split=val", output),
            "--images are labelled without --split",
        ),
        (("predict", model, f"--images={root}/docs/pictures", output, "--flip=maybe"), "--flip must be true or false"),
        (("predict", model, f"--images={root}/docs/pictures", output, "--scales=0"), "got 0.0."),
        (("export", model, f"--output={tmp_path}/new", "--data_dir=nope"), "there is no such folder"),
        (
            ("export", model, f"--output={tmp_path}/new", f"--data_dir={tmp_path}/empty"),
            "holds neither records nor photographs",
        ),
        (
            ("export", f"--model={tmp_path}/maps", f"--output={tmp_path}/new"),
            "A model is exported from its run folder or its .keras file, but this one is read as label maps",
        ),
        (("train", f"--flagfile={tmp_path}/loop"), f"Cannot read flagfile {tmp_path}/loop"),
        (("train", "--flagfile="), "--flagfile needs a path"),
        (("benchmark", "--model=unet", "--height=100", "--width=64"), "must be multiples of 16, got 100x64"),
        ((*prepare, f"--output={records}"), f"{records} holds records of something else than streets"),
        ((*prepare, f"--output={photos}"), f"{photos} must be a new or empty folder, but holds classes.json"),
        ((*prepare, f"--source={photos}", output), "photos must be a new or empty folder, or hold streets"),
        ((*prepare, f"--output={half}"), f"{half} holds records of something else than streets"),
        ((*prepare, f"--output={tmp_path}/gone"), "must be a folder, but is a link to nothing"),
        ((*prepare, "--output=gs://bucket/x"), "Records are written into a local folder, got gs://bucket/x"),
        ((*prepare, f"--output={tmp_path}/same", f"--source={tmp_path}/same"), "lies in the input"),
        (
            ("predict", f"--model={tmp_path}/fifo", f"--images={root}/docs/pictures", output),
            "must be a file or a folder",
        ),
        (("train", f"--flagfile={tmp_path}/fifo"), "it is no file"),
        ((*prepare, output, "--train_scenes=1000000"), "train must be at most 999999, got 1000000"),
        (
            ("prepare", "--dataset=folder", f"--source={photos}", output, "--seed=7"),
            "--seed has no effect: --dataset=folder draws nothing",
        ),
        (("prepare", "--dataset=folder", f"--source={root}/LICENSE", output), "must be a folder, but"),
        (
            ("train", "--model=unet", f"--data_dir={photos}", new, "--epochs=1"),
            "it looks like images and labels",
        ),
        (("train", "--model=unet", f"--data_dir={root}/LICENSE", new, "--epochs=1"), "LICENSE is a file"),
        (("evaluate", model, "--data_dir=no/data"), "There is no record folder no/data"),
        (("predict", "--model=no/run", f"--images={root}/README.md", output), "No model at no/run"),
        (
            ("predict", model, f"--images={tmp_path}/photos.zip", output),
            "photos.zip. Images are PNG, JPEG, WebP, TIFF and",
        ),
        (("predict", model, f"--images={tmp_path}/photos.zip", output), "Unpack the zip, and give its folder."),
        (("predict", "--model=no/run", data, "--split=val", output), "No model at no/run"),
        (
            ("predict", f"--model={run}", f"--images={root}/LICENSE", output, "--write=colour"),
            "--write must be some of",
        ),
        (("predict", f"--model={run}", f"--images={root}/LICENSE", output, "--tile=0"), "tile"),
        (
            (
                "predict",
                model,
                f"--images={root}/docs/pictures",
                f"--output={root}/SECURITY.md",
            ),
            "is a file",
        ),
        (
            (
                "predict",
                model,
                f"--images={root}/docs/pictures/camvid.png",
                f"--output={root}/docs/pictures",
            ),
            "is the input",
        ),
        (
            ("predict", model, "--submission", f"--source={tmp_path}", output),
            "holds neither leftImg8bit",
        ),
        (("evaluate", model, data, f"--map={root}/LICENSE"), "must be a .toml or .json file"),
        (
            ("evaluate", model, data, f"--map={records.parent}/source/classes.json"),
            "with \"\" for none, got classes = [{'id': 0, 'name'",
        ),
        (("evaluate", model, data, "--protocol=cityscapes"), "needs records of Cityscapes that hold its regular ids"),
        (("compare", "no/run", "no/other", data, output), "No model at no/run"),
        (("compare", pair[1], f"{tmp_path}/maps", data, output), "images have none: "),
        (("evaluate", f"--model={tmp_path}/maps", data, f"{output}.json"), "; 1 file of no image: a.png."),
        (
            ("compare", *pair, data, output, "--split=tset"),
            "no split 'tset'",
        ),
        (
            ("compare", pair[0], pair[0], data, output),
            "other.keras was given twice",
        ),
        (
            ("compare", *pair, data, f"--output={run}"),
            "which kseg did not write",
        ),
        (("export", "--model=no/run", output), "No model at no/run"),
        (
            ("export", model, "--format=onnx", output),
            "A file of format onnx must end in .onnx",
        ),
        (
            ("export", model, "--quantize=int8", output),
            "Format savedmodel holds float32 alone",
        ),
        (("export", model, f"--output={root}/docs"), "which kseg did not write"),
        (
            ("evaluate", model, data, f"--output={root}/README.md"),
            "is not a table of scores",
        ),
        (
            ("evaluate", model, data, f"--report_dir={root}/README.md"),
            "must be a folder, but is a file",
        ),
        (
            ("calibrate", model, "--data_dir=no/data", f"{output}.keras"),
            "no record folder no/data",
        ),
        ((*train, new, "--epochs=1", "--init_from=no/run"), "No model at no/run"),
        ((*train, new, "--epochs=1", "--momentum=0.5"), "--momentum has no effect with --optimizer=adam"),
        ((*train, new, "--epochs=1", "--height=64"), "neither, got --height=64 without --width."),
        (
            ("train", "--model=segnet", data, new, "--epochs=1", "--encoder=resnet50"),
            f"has no option encoder. Models with encoder are {', '.join(with_encoder)}. Its options are 'base_filters'",
        ),
        ((*train, new, "--epochs=1", "--encodr=vgg16"), "Unknown command line flag 'encodr'"),
        ((*train, new, "--epochs=1", "--accumulate_steps=3"), "--batch_size must be a multiple of --accumulate_steps"),
        ((*train, new, "--epochs=1", "--label_set=nosuch"), "has no label set 'nosuch'"),
        ((*train, new, "--epochs=1", "--batch_size=500"), "A batch of 500 needs at least as many training images"),
        ((*train, new, "--epochs=1", "--encoder=vgg16", "--encoder_weights=no.h5"), "No encoder weights at no.h5"),
        ((*train, new, "--epochs=1", "--encoder=mobilenetv2"), "got 'mobilenetv2'. Did you mean mobilenet_v2?"),
        ((*train, new, "--epochs=1", "--base_filters=-1"), "base_filters"),
        ((*train, new, "--epochs=1", '--model_options={"depth": 2.5}'), "depth must be a whole number"),
        ((*train, new, "--epochs=1", "--encoder=hub:"), "hub:PRESET or, in Python, a keras.Model"),
        (
            (*encoder, "--encoder_weights=preset"),
            "'preset' and an encoder hub:PRESET go together, got 'preset'",
        ),
        ((*encoder, f"--encoder_weights={root}"), f"must be a file, but {root} is a folder"),
        (
            (*encoder, f"--encoder_weights={root}/LICENSE"),
            "must be Keras' HDF5 or a PyTorch state dict, but",
        ),
        ((*encoder, f"--encoder_weights={tmp_path}/empty.h5"), "empty.h5 is empty"),
        ((*encoder, f"--encoder_weights={tmp_path}/whole.keras"), "is a whole model, not an encoder's weights. Start"),
        ((*encoder, "--encoder_weights=imagenet", "--base_filters=4"), "those of --base_filters 64, got 4"),
        (
            (*encoder, '--model_options={"encoder": "resnet50"}'),
            '--model_options says "resnet50"',
        ),
        (("evaluate", model, data, "--group_by=block:0"), "needs a whole number of frames"),
        (
            ("evaluate", model, data, "--group_by=drives"),
            "with a group in brackets, got 'drives'",
        ),
        (
            ("evaluate", model, data, "--group_by=(nope)"),
            "must match every name, but does not",
        ),
        (
            ("compare", *pair, data, output, "--group_by=("),
            "a regular expression, got",
        ),
        ((*train, f"--workdir={root}/LICENSE", "--epochs=1"), "--workdir must be a folder, but"),
        ((*train, f"--workdir={root}/docs", "--epochs=1"), "holds files but no kseg run"),
        ((*train, "--workdir=/proc/x/y", "--epochs=1"), "Choose another workdir."),  # not there, or takes no folders
        (("predict", model, f"--images={root}/docs/pictures", "--output=/proc/x"), "Choose another output."),
        ((*train, new, "--epochs=1", "--height=100", "--width=64"), "must be multiples of 16, got 100x64"),
        ((*encoder, "--height=96", "--width=80"), "must be multiples of 32, got 96x80"),
        ((*train, new, "--epochs=1", "--class_weights=1,2"), "--class_weights must be 3 numbers"),
        ((train[0], "--model=unett", *train[2:], new), "Unknown model 'unett'"),
        ((*train, old, "--epochs=3", "--seed=1"), "  --seed: stored '0', now '1'\nUse another --workdir."),
        (("compare", "--verify=nosuch"), "nosuch must be a folder, the output of kseg compare or kseg study, but does"),
        (("study", f"--report={root}/LICENSE"), "must be a folder, the output of kseg study, but is a file"),
        (
            ("study", "nosuch"),
            "There is no nosuch. Give a STUDY.toml, or a study of kseg's: baselines, baselines_longer, ",
        ),
        ((*train, old, "--epochs=2"), "A run can be extended but not shortened: it has 3 steps, got 2."),
    ]
    found, frameworks = answers(COMMANDS, json.dumps([arguments for arguments, _ in cases]))
    for (code, said), (arguments, text) in zip(found, cases, strict=True):
        assert code == 2 and text in said and "Errno" not in said, (arguments, said)
    assert frameworks == [] and not (tmp_path / "new").exists()


def test_what_needs_no_statistics_is_refused_before_scipy_is_imported(tmp_path):
    """SciPy's statistics take longer to import than all else that these commands need to see what is wrong."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "q.flags").write_text("--batch_size=2\n")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "study.json").touch()
    (tmp_path / "bad.toml").write_text("name = streets\n")
    is_toml = "A study is a TOML file: docs/how-to/studies.md."
    cases = [
        (("study", "folder"), f"folder is a folder. {is_toml}\n"),
        (("study", "output"), f"{is_toml} To report on the study in this folder: kseg study --report=output\n"),
        (("study", "q.flags"), f"q.flags is a flagfile, for kseg train --flagfile=q.flags\n{is_toml}\n"),
        (("study", "quickstart"), "quickstart.flags is a flagfile, for kseg train --flagfile="),
        (("study", "bad.toml"), is_toml),
        (("train", "--flagfile=studies/streets"), "streets.toml is a study, not a flagfile. Run kseg study "),
        (("study", "camvid"), "There is no record folder data/camvid."),
        (("compare", "--verify=folder"), "folder holds no report"),
        (
            ("evaluate", "--audit", "--mean=.7532,.0041,5", "--mean=.7480,.0052,1"),
            "two runs or more, got 0.748, 0.0052",
        ),
    ]
    program = COMMANDS.replace('{"keras", ', '{"keras", "scipy", ')
    found, imported = answers(program, json.dumps([arguments for arguments, _ in cases]), folder=tmp_path)
    for (code, said), (arguments, text) in zip(found, cases, strict=True):
        assert code == 2 and text in said, (arguments, said)
    assert imported == []


def test_an_export_says_before_any_framework_is_imported_what_is_not_installed(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole.keras", "w") as archive:
        archive.writestr("config.json", b"{}")
    absent = 'sys.modules["tf2onnx"] = None\n'
    arguments = [("export", f"--model={tmp_path}/whole.keras", "--format=onnx", f"--output={tmp_path}/new.onnx")]
    ((code, said),), frameworks = answers(COMMANDS.replace("found = []", absent + "found = []"), json.dumps(arguments))
    assert code == 2 and "needs the package tf2onnx. Install it with pip install 'kseg[onnx]'" in said
    assert frameworks == []


def test_a_study_of_ours_says_how_to_prepare_its_records(tmp_path):
    ((code, said),), frameworks = answers(COMMANDS, json.dumps([("study", "streets")]), folder=tmp_path)
    assert code == 2 and "There is no record folder data/streets." in said and frameworks == []
    command = "kseg prepare --dataset=synthetic --train_scenes=960 --val_scenes=240 --seed=11 --output=data/streets"
    assert said.splitlines()[-1].strip() == command
    by_name = "import kseg\ntry: kseg.study('streets')\nexcept FileNotFoundError as error: found = str(error)\n"
    report = "import json, sys; print(json.dumps([found, sorted({'keras', 'tensorflow'} & set(sys.modules))]))"
    said, frameworks = answers(by_name + report, folder=tmp_path)
    assert said.startswith("streets: There is no record folder data/streets") and frameworks == []


def test_python_is_refused_as_early_and_in_its_own_words(records, run, tmp_path):
    new = str(tmp_path / "new")
    cases = [
        ((new, {}), "Give either epochs or train_steps, above 0: nothing says how long to train."),
        ((new, {"epochs": 1, "init_from": "no/run"}), "No model at no/run"),
        ((new, {"epochs": 1, "momentum": 0.5}), "momentum has no effect with optimizer=adam"),
        ((new, {"epochs": 1, "optimizer": "adamw"}), "optimizer=adamw needs a weight_decay above 0"),
        ((new, {"epochs": 1, "height": 3}), "Give both height and width or neither, got height=3 without width."),
        ((new, {"epochs": 1, "model_options": {"depht": 2}}), "Model 'unet' has no option depht"),
        ((new, {"epochs": 1, "label_set": "nosuch"}), "has no label set 'nosuch'"),
        ((str(run), {"epochs": 3, "seed": 1}), "  seed: stored '0', now '1'\nUse another workdir."),
    ]
    found, frameworks = answers(PYTHON, str(records), json.dumps([arguments for arguments, _ in cases]))
    for said, (arguments, text) in zip(found, cases, strict=True):
        assert text in said and "--" not in said, (arguments, said)
    assert frameworks == [] and not (tmp_path / "new").exists()


CALLS = """
import json, sys
import kseg
found = []
for call in json.loads(sys.argv[1]):
    try:
        eval(call)
    except kseg.InputError as error:
        found.append(str(error))
print(json.dumps([found, sorted({"keras", "tensorflow"} & set(sys.modules))]))
"""


def check_calls(cases, folder):
    """Check that calls, as Python texts, are refused with such messages, and before any framework is imported."""
    found, frameworks = answers(CALLS, json.dumps(list(cases)), folder=folder)
    for said, (call, text) in zip(found, cases.items(), strict=True):
        assert text in said, (call, said)
    assert frameworks == []


def test_train_judges_its_other_arguments_as_early(records, tmp_path):
    data = repr(str(records))
    cases = {
        f"kseg.train(None, {data}, 'new', epochs=1)": "model must be a name of kseg.MODELS or a function",
        f"kseg.train(lambda n: n, {data}, 'new', epochs=1)": "model must be a function without arguments",
        f"kseg.train('unet', {data}, 'new', epochs=1, model_options='{{}}')": "model_options must be a dict",
        f"kseg.train('unet', {data}, 'new', epochs=1, callbacks=[print])": "callbacks must hold keras.callbacks",
        f"kseg.train('unet', {data}, 'new', epochs=1, strategy='all')": "strategy must be one of auto, one",
        "kseg.train('unet', None, 'new', epochs=1)": "data_dir must be the path of a folder, got None",
        "kseg.train('unet', 'data/nothere', 'new', epochs=1)": "Make one with kseg.prepare_dataset or kseg prepare.",
        f"kseg.train('unett', {data}, 'new')": "Unknown model 'unett'",  # the length is asked for last
        "kseg.train('unet', 'data/nothere', 'new')": "There is no record folder data/nothere.",
    }
    check_calls(cases, tmp_path)
    assert not (tmp_path / "new").exists()


def test_what_reads_a_model_refuses_what_is_none_as_early(records, tmp_path):
    data = repr(str(records))
    with zipfile.ZipFile(tmp_path / "whole.keras", "w") as archive:
        archive.writestr("config.json", b"{}")
    (tmp_path / "a.png").touch()
    cases = {
        "kseg.load_model(None)": "model must be the path of a file or folder, got None",
        "kseg.load_model('runs/nope')": "No model at runs/nope",
        "kseg.predict('runs/nope', 'a.png')": "No model at runs/nope",
        "kseg.predict(['whole.keras', 'runs/nope'], 'a.png')": "No model at runs/nope",
        "kseg.predict(3, 'a.png')": "model must be a keras.Model or the path of one, or a list of those, got 3",
        "kseg.predict('whole.keras', 'nope.png')": "There is no nope.png.",
        "kseg.predict('whole.keras', '*.jpg')": "There is no *.jpg. Give a list of files, such as sorted(glob.glob(",
        "kseg.predict('whole.keras', '.')": "An image must be a file, but . is a folder. Give a list of files, such as",
        f"kseg.evaluate('runs/nope', {data})": "No model at runs/nope",
        f"kseg.evaluate(None, {data})": "model must be a keras.Model or the path of one, or a list of those, got None",
        "kseg.evaluate('whole.keras', 'data/nothere')": "There is no record folder data/nothere.",
        f"kseg.evaluate('whole.keras', {data}, split='tset')": "no split 'tset'",
        f"kseg.evaluate('whole.keras', {data}, label_set='nosuch')": "has no label set 'nosuch'",
        f"kseg.evaluate('whole.keras', {data}, group_by='(')": "a regular expression, got",
        "kseg.evaluate('whole.keras', [])": "There must be at least one image to score, got 0.",
        "kseg.evaluate('whole.keras', ['a.png'])": "Data must be pairs (image, label), arrays or paths",
        "kseg.evaluate('whole.keras', [('a.png', 'no.png')])": "There is no no.png.",
        "kseg.evaluate('whole.keras', [('no.png', 'a.png')])": "There is no no.png.",
        "kseg.predict('whole.keras', 'a.png', ids='foo')": "ids must be dataset or train, got 'foo'.",
        "kseg.predict('whole.keras', 'a.png')": "a.png: empty (0 bytes)",
        "kseg.export_model('runs/nope', 'export')": "No model at runs/nope",
        "kseg.export_model('whole.keras', 'x.onnx')": "Format savedmodel writes a folder, whose name must not end in",
    }
    check_calls(cases, tmp_path)


def test_what_a_run_says_of_its_size_and_classes_is_judged_as_early(records, tmp_path):
    label_set = {"name": "train_ids", "classes": ["road", "sky"]}
    layers = [
        {"registered_name": None, "config": {"batch_shape": [None, 64, 96, 3]}},
        {"registered_name": "kseg>Preprocess", "config": {"label_set": label_set}},
    ]
    with zipfile.ZipFile(tmp_path / "small.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"name": "unet", "layers": layers}}))
    (tmp_path / "a.png").touch()
    data, classes = repr(str(records)), len(load_manifest(records).info.label_set("train_ids").classes)
    other = f"small.keras has 2 classes, but label set train_ids of {records} has {classes}. It was trained on others "
    scales = "--scales other than 1 need a model of free size, but unet takes images of 96x64 alone."
    cases = {
        f"kseg.evaluate('small.keras', {data})": other + "(road, sky). Choose data of its classes",
        "kseg.evaluate('small.keras', [('a.png', 'a.png')], scales=(0.5, 1))": scales.removeprefix("--"),
        "kseg.predict('small.keras', 'a.png', scales=[0.5, 1])": scales.removeprefix("--"),
    }
    check_calls(cases, tmp_path)
    typed = [
        ("evaluate", ["--model=small.keras", f"--data_dir={records}"], other),
        ("compare", ["small.keras", "b.keras", f"--data_dir={records}", "--output=report"], other),
        ("predict", ["--model=small.keras", "--images=a.png", "--output=labels", "--scales=0.5,1"], scales),
    ]
    (tmp_path / "b.keras").write_bytes((tmp_path / "small.keras").read_bytes())
    cases = [[name, *arguments] for name, arguments, _ in typed]
    found, frameworks = answers(COMMANDS, json.dumps(cases), folder=tmp_path)
    for (code, said), (*given, text) in zip(found, typed, strict=True):
        assert code == 2 and text in said, (given, said)
    assert frameworks == []


def test_build_model_refuses_names_options_and_shapes_as_early(tmp_path):
    shape = "(64, 96, 3)"
    cases = {
        f"kseg.build_model('unett', {shape}, 5)": "Unknown model 'unett'. Choose one of deeplabv3, ",
        f"kseg.build_model('unet', {shape}, 5, depht=3)": "Model 'unet' has no option depht.",
        f"kseg.build_model('unet', {shape}, 5, depth='3')": "depth must be a whole number of at least 1, got '3'.",
        f"kseg.build_model('unet', {shape}, 5, encoder='vgg')": "got 'vgg'. Did you mean vgg16?",
        "kseg.build_model('unet', (64, 96), 5)": "input_shape must be (height, width, 3)",
        f"kseg.build_model('unet', {shape}, 1)": "num_classes must be a whole number of at least 2, got 1.",
    }
    check_calls(cases, tmp_path)
