"""The configs and pages that travel with kseg: finding one by its name, and what a config says about itself."""

import dataclasses
import pathlib
import re

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
SUFFIXES = (".flags", ".toml")
_NONE_TO_START = ("shared/", "contestants/")  # parts of others, and descriptions of models from outside
_INCLUDE = re.compile(r"^--flagfile=(.+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Config:
    """What a config says about itself, texts: its name, models, dataset, and what was measured with it."""

    name: str
    model: str
    dataset: str
    measured: str


def configs_folder():
    """Return the folder of the configs: in an installed kseg its own, in a clone the one beside the package."""
    inside = _PACKAGE / "configs"
    if inside.is_dir():
        return inside
    return _PACKAGE.parent / "configs"


def with_commands(text):
    """Return a text in which `python scripts/NAME.py` is the command of an installed kseg that does the same."""
    text = text.replace("python scripts/prepare_data.py ", "kseg prepare ")
    return re.sub(r"python scripts/(\w+)\.py ", r"kseg \1 ", text)


def config_files():
    """Return {name: path} of the configs that can be started, by a name such as "camvid/laptop"."""
    folder = configs_folder()
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES]
    names = {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
    return {name: path for name, path in names.items() if not name.startswith(_NONE_TO_START)}


def find_config(given, folder=""):
    """Return the path of what a person calls a config: a file of that path wins over the config of that name.

    Args:
        given: str: a path, or a name with or without suffix ("segnet_aspp", "configs/camvid/unet.flags").
        folder: of the configs, in which a name is looked for too ("studies").
    """
    path = pathlib.Path(given)
    if path.exists():
        return path
    name = given.removeprefix("configs/")
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    for place in (configs_folder(), configs_folder() / folder):
        for suffix in SUFFIXES:
            if (place / f"{name}{suffix}").is_file():
                return place / f"{name}{suffix}"
    return path


def config_text(path):
    """Return a config as one text that needs no other file: the flagfiles that it names are written in place."""

    def included(line):
        return config_text((path.parent / line[1].strip()).resolve()).strip()

    return _INCLUDE.sub(included, path.read_text(encoding="utf-8"))


def read_config(name, path):
    """Return the Config of a file, from its flags or keys and its comment "Measured: ..." or "Expected: ..."."""
    text = config_text(path)
    if path.suffix == ".toml":
        models = re.findall(r'^\[\[models\]\]\nname = "(.+)"$', text, re.MULTILINE)
        dataset = _last(r'^dataset = "(.+)"$', text)
    else:
        models = [_last(r"^--model=(.+)$", text)]
        dataset = _last(r"^--dataset=(.+)$", text)
    head = path.read_text(encoding="utf-8").split("\n--")[0].split("\nname =")[0]
    comment = "\n".join(line.removeprefix("#").strip() for line in head.split("\n"))
    measured = re.search(r"(?:Measured|Expected): (.+?)(?:\.$|\Z)", comment, re.DOTALL | re.MULTILINE)
    if "--dataset=synthetic" in head or dataset == "synthetic":  # with the classes of Cityscapes, but drawn
        dataset = "synthetic streets"
    return Config(name, ", ".join(models), dataset, f"{' '.join(measured[1].split())}." if measured else "")


def _last(pattern, text):
    """Return the value of a flag or key where it is given last, for that one counts; "" where it is not given."""
    return (re.findall(pattern, text, re.MULTILINE) or [""])[-1]
