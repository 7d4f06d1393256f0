"""README.md and docs/: every command is read by the real flag parser, every block runs or says what it needs."""

import ast
import configparser
import importlib
import json
import re
import sys

import doc_blocks
import pytest
from absl import flags
from doc_blocks import LANGUAGES, NEEDS, PAGES, ROOT

import kseg
from kseg.commands import flagfiles, train_command
from kseg.commands.main import COMMANDS
from kseg.settings import MODEL_FILES, check_model_name, check_model_options, current_options, options_in_source

BLOCKS = doc_blocks.all_blocks()
SHELL = [block for block in BLOCKS if block.language == "sh"]
OTHER_PROGRAMS = (
    "mkdir",
    "cp",
    "curl",
    "docker",
    "echo",
    "pip",
    "export",
    "for",
    "done",
    "srun",
    "tensorboard",
    "mkdocs",
    "git",
    ".ci/run",
)
# Of every command, of Slurm and TensorBoard, and what stands for any flag.
OTHER_FLAGS = ("help", "version", "flagfile", "signal", "requeue", "nodes", "ntasks", "logdir", "flag", "noNAME")
README_LINES = 130


def _module(command):
    return importlib.import_module(f"kseg.commands.{COMMANDS[command]}")


def _parse(words):
    """Read a command's flags as the command does; checks the settings of a training run too."""
    module = _module(words[0])
    written_by_kseg = ("--flagfile=runs/", "--flagfile=mine")  # no file of the repository
    arguments = flagfiles.expand_flagfiles([word for word in words[1:] if not word.startswith(written_by_kseg)])
    module.FLAGS.unparse_flags()
    for flag in module.FLAGS:
        module.FLAGS[flag].unparse()
    takes_arguments = words[0] in ("compare", "study")
    module.FLAGS.set_gnu_getopt(takes_arguments)
    rest = module.FLAGS([f"kseg {words[0]}", *arguments])[1:]
    assert takes_arguments or not rest, f"not a flag: {rest}"
    if module is train_command:
        _check_run(module.FLAGS)


def _check_run(given):
    if not given.model or not (given.epochs or given.train_steps):  # the rest is in a flagfile that a run wrote
        return
    _, options = train_command.settings_and_options(given)
    check_model_name(given.model, MODEL_FILES)
    check_model_options(given.model, current_options(given.model, options), options_in_source(given.model))


def _check_program(words):
    """Check a command that is not kseg's: it is known, and what it names is there."""
    program, *arguments = words
    if program == "pip" and "-e" in arguments:
        extras = re.findall(r"\[(.*)\]", " ".join(arguments))
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        assert set(",".join(extras).split(",")) - {""} <= set(setup["options.extras_require"])
    elif program in ("python", "pytest"):
        if arguments[:1] == ["-m"]:
            assert (ROOT / f"{arguments[1].replace('.', '/')}.py").exists() or arguments[1] == "pytest"
        named = [word for word in arguments if re.fullmatch(r"(tests|scripts)/[\w/.]+", word)]
        assert all((ROOT / word).exists() for word in named), named
    else:
        assert program in OTHER_PROGRAMS, f"{program} is not a program that these pages use"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_of_a_known_language_and_need(block):
    assert block.language in LANGUAGES, "write ```sh, ```python, ```toml, ```json or ```text"
    assert block.needs in ("", *NEEDS)
    if block.language == "python":
        ast.parse(block.text)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        _toml(block.text)


def _toml(text):
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_is_one_that_its_program_takes(block):
    commands = doc_blocks.commands_of(block.text)
    assert commands
    for words in commands:
        if words[0] == "python" and re.fullmatch(r"scripts/(?!benchmark)\w+\.py", words[1]):
            words = ["kseg", words[1][len("scripts/") : -len(".py")].removesuffix("_data"), *words[2:]]
        if words[0] == "kseg" and words[1] != "--version":
            _parse(words[1:])
        elif words[0] != "kseg":
            _check_program(words)


@pytest.mark.parametrize(
    "command", ["kseg train --epoch=1", "kseg train --model=u --epochs=1", "kseg predict photo.jpg"]
)
def test_a_wrong_command_is_found(command):
    with pytest.raises((flags.Error, ValueError, AssertionError)):
        _parse(command.split()[1:])


def test_commands_in_a_block_are_found():
    text = "a=\"kseg train\"\n$a --x \\\n  --y  # no\nsrun bash -c '\n  kseg study s\n'\nK=1 kseg export\n"
    assert doc_blocks.commands_of(text) == [
        ["kseg", "train", "--x", "--y"],
        ["kseg", "study", "s"],
        ["kseg", "export"],
    ]


def test_every_flag_in_the_text_is_a_flag():
    known = {"suite", "torch_python", "rounds", *OTHER_FLAGS}
    for command in COMMANDS:
        known |= {name for flag in _module(command).FLAGS for name in (flag, f"no{flag}")}
    for page in PAGES:
        for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            found = set(re.findall(r"(?<![\w-])--([a-z_]\w*)", code))
            assert found <= known, f"{page.relative_to(ROOT)} names {found - known}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_links_of_pages_that_mkdocs_does_not_build_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"):
        for target in re.findall(r"\]\(([^)#]+)\S*\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{page.name}: {target}"


def test_pages_that_the_code_names_are_there():
    for folder in ("kseg", "configs", "tests", "benchmarks", "scripts", "docs"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".flags", ".toml", ".md"):
                for name in re.findall(r"docs/(?:[\w-]+/)*[\w-]+\.(?:md|svg|png)", path.read_text(encoding="utf-8")):
                    assert (ROOT / name).exists(), f"{path.relative_to(ROOT)} names {name}"


def test_the_front_page_and_the_menu_have_every_page():
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES if "docs" in path.parts} - {"README.md"}
    front = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    missing = pages - set(re.findall(r"\]\(([\w/-]+\.md)\)", front))
    assert not missing, f"docs/README.md must link to {missing}"
    missing = pages - set(re.findall(r"[\w/-]+\.md", menu))
    assert not missing, f"nav of mkdocs.yml must have {missing}"


def test_the_score_of_the_quickstart_is_the_same_everywhere():
    config = (ROOT / "configs" / "quickstart.flags").read_text(encoding="utf-8")
    measured = re.search(r"Measured: mean IoU ([\d.]+)", config)[1]
    for name in ("README.md", "docs/tutorials/quickstart.md", "docs/reference/results.md"):
        said = re.findall(r"[Mm]ean IoU (?:is )?(0\.\d+)", (ROOT / name).read_text(encoding="utf-8"))
        assert measured in said, f"{name} must give the mean IoU of configs/quickstart.flags, {measured}"


def test_messages_on_the_page_for_errors_are_those_of_the_code():
    """Each heading in code is a message; what stands between its dots must be in one text of the code."""
    texts = set()
    for path in (ROOT / "kseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.add("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    page = (ROOT / "docs" / "how-to" / "when-it-goes-wrong.md").read_text(encoding="utf-8")
    messages = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    assert len(messages) >= 20
    for message in messages:
        parts = [part for part in re.split(r"\.\.\.", message) if part.strip(" :,")]
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in parts), re.DOTALL)
        assert any(pattern.search(text) for text in texts), message


def test_reference_pages_have_every_flag_public_name_and_builder(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    pages = importlib.import_module("reference_pages")
    text = pages.with_generated((ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8"))
    for command in COMMANDS:
        section = text.partition(f"\n## kseg {command}\n")[2].partition("\n## ")[0]
        assert set(re.findall(r"^\| `--(\w+)` \|", section, re.MULTILINE)) == set(_module(command).FLAGS)
    text = pages.with_generated((ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8"))
    for name in set(kseg.__all__) - {"__version__", "MODELS", "data", "metrics", "models"}:
        assert f"`kseg.{name}`" in text, name
    assert "`kseg.metrics.SegmentationScores`" in text and "<!-- end -->" not in text
    text = pages.with_generated((ROOT / "docs" / "reference" / "models.md").read_text(encoding="utf-8"))
    for name in MODEL_FILES:
        assert f"\n### `{name}`\n" in text
    assert pages.with_generated("a page without marks\n") == "a page without marks\n"
