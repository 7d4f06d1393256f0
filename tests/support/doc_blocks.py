"""The code blocks of README.md and docs/: what they are, what they need, and the commands in them."""

import dataclasses
import pathlib
import re
import shlex

from markdown_it import MarkdownIt

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LANGUAGES = ("sh", "python", "toml", "json", "text")
# What a block may need that is not here, as in <!-- needs: gpu --> on the line before it.
NEEDS = {
    "cityscapes": "the zips of Cityscapes, and models trained on them",
    "camvid": "the folder of CamVid, and models trained on it",
    "clone": "the clone of the repository, where its benchmarks/ are",
    "quickstart": "the run that kseg train --flagfile=quickstart leaves",
    "download": "files from the network: weights, packages",
    "gpu": "a GPU",
    "cluster": "several machines, Slurm or Ray",
    "minutes": "minutes of two cores",
    "hours": "hours of two cores",
    "yours": "files or names of the reader's own",
}
_MARK = re.compile(r"^<!-- needs: (.+) -->\s*$")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced or indented block: page (relative path), line (of its first line), language, text, what it needs."""

    page: str
    line: int
    language: str
    text: str
    needs: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def blocks_of(path):
    """Return the Blocks of a page, as CommonMark sees them, those in lists too."""
    tokens = MarkdownIt().parse(path.read_text(encoding="utf-8"))
    found = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type not in ("fence", "code_block"):
            continue
        mark = _MARK.match(before.content) if before is not None and before.type == "html_block" else None
        found.append(
            Block(
                page=path.relative_to(ROOT).as_posix(),
                line=token.map[0] + 1,
                language=token.info.split(" ")[0] or _guess(token.content),
                text=token.content,
                needs=mark[1] if mark else "",
            )
        )
    return found


def _guess(text):
    """Return the language of a block that does not say it."""
    if re.match(r"(import|from|def|model) ", text):
        return "python"
    if re.match(r"\[|\w+ = ", text):
        return "toml"
    return "json" if text.startswith("{") else "sh"


def all_blocks():
    """Return the Blocks of every page."""
    return [block for page in PAGES for block in blocks_of(page)]


def commands_of(text):
    """Return the commands of a shell block as lists of words; those inside a quoted program (`bash -c '...'`) too.

    A variable that the block sets is replaced; what stands before a command (VARIABLE=value, srun) is left out.
    """
    variables = {}
    commands = []
    for words in _lines(text):
        if re.match(r"\w+=\$\(", words[0]):  # what another program prints
            continue
        while words and re.match(r"\w+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        words = [part for word in words for part in _expanded(word, variables)]
        nested = [word for word in words if "\n" in word and "kseg " in word]
        for program in nested:
            commands += commands_of(program)
        if words and not nested:
            commands.append(words)
    return commands


def _expanded(word, variables):
    if word.startswith("$") and word[1:] in variables:
        return shlex.split(variables[word[1:]])
    return [word]


def _lines(text):
    """Give the words of each line; a line goes on after a backslash and inside quotes."""
    waiting = ""
    for line in text.replace("\\\n", " ").split("\n"):
        waiting += line
        try:
            words = shlex.split(waiting, comments=True)
        except ValueError:  # no closing quotation yet
            waiting += "\n"
            continue
        waiting = ""
        if words:
            yield words
    if waiting:
        raise ValueError(f"A quotation is not closed: {waiting}")
