"""README.md and docs/: blocks that need nothing but kseg run, on tiny photographs and with small numbers."""

import shutil

import doc_blocks
import docs_workspace
import pytest

RUNNABLE = [block for block in doc_blocks.all_blocks() if not block.needs and block.language in ("sh", "python")]
SCRIPTS = {"prepare": "prepare_data"}
PAGES = sorted({block.page for block in RUNNABLE} - {"CONTRIBUTING.md"})  # its commands are the tests themselves
LONG = ("--flagfile=quickstart",)  # minutes, and a test of its own: tests/test_quickstart.py
NEVER = ("docs.diagram",)  # tests/docs/test_diagram.py draws these


def _run(call_script, words):
    code, out, error = call_script(SCRIPTS.get(words[0], words[0]), *docs_workspace.small(words)[1:])
    assert code == 0, f"{' '.join(words)}: {error}"
    return out


def _commands(blocks):
    for block in blocks:
        for words in doc_blocks.commands_of(block.text):
            if words[0] == "kseg" and words[1] != "--version" and not set(words) & set(LONG):
                yield words[1:]


def _quick(words):
    """True for what takes no model and no framework."""
    return words[0] in ("configs", "prepare") or "--audit" in words


def test_quick_commands_run(tmp_path, monkeypatch, call_script):
    docs_workspace.write_photographs(tmp_path)
    monkeypatch.chdir(tmp_path)
    shell = [block for block in RUNNABLE if block.language == "sh"]
    once = {tuple(words): words for words in _commands(shell) if _quick(words)}
    assert len(once) >= 5
    for words in sorted(once.values(), key=lambda words: any("--check" in word for word in words)):
        assert _run(call_script, words)
    assert (tmp_path / "data" / "mydata.check.png").exists()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The folder that every page starts from: records, and the runs that pages take as given."""
    import kseg

    folder = tmp_path_factory.mktemp("docs")
    docs_workspace.write_photographs(folder)
    kseg.prepare_dataset("folder", folder / "mydata", folder / "data" / "mydata", workers=1, progress=False)
    kseg.train(
        "unet",
        str(folder / "data" / "mydata"),
        str(folder / "runs" / "mydata"),
        epochs=1,
        height=32,
        width=64,
        batch_size=2,
        model_options={"base_filters": 4},
    )
    shutil.copytree(folder / "runs" / "mydata", folder / "runs" / "narrow")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs(page, workspace, tmp_path, monkeypatch, call_script):
    folder = tmp_path / "reader"
    shutil.copytree(workspace, folder)
    monkeypatch.chdir(folder)
    blocks = [block for block in RUNNABLE if block.page == page]
    for words in _commands(block for block in blocks if block.language == "sh"):
        if words[0] == "train" and not any(word.startswith("--flagfile=runs/") for word in words):
            for workdir in (word.partition("=")[2] for word in words if word.startswith("--workdir=")):
                shutil.rmtree(folder / workdir, ignore_errors=True)
    namespace = {}
    for block in blocks:
        if any(word in block.text for word in NEVER):
            continue
        if block.language == "python":
            exec(compile(docs_workspace.small_code(block.text), str(block), "exec"), namespace)
            continue
        for words in _commands([block]):
            _run(call_script, words)
