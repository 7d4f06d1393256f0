"""What mkdocs adds to the pages of docs/reference/: every flag and every public name, read from the code.

A page has a line `<!-- flags: train -->`, `<!-- public names -->` or `<!-- builders -->`; mkdocs calls
`on_page_markdown`, which puts the text there. What follows up to `<!-- end -->` is for GitHub alone, as is what follows
`<!-- on github -->`. Nothing generated is committed, so nothing can go stale. The code is parsed, not imported, but for
the commands' flags, which need no framework.
"""

import ast
import importlib
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # mkdocs starts in the clone, but kseg need not be installed from it
MARK = re.compile(
    r"^<!-- (flags: (?P<command>\w+)|public names|builders|on github) -->$(\n(?:(?!<!--).*\n)+<!-- end -->$)?",
    re.MULTILINE,
)
SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Call|Options|Arguments):\s*(.*)$")
WIDTH = 88  # of a signature on one line


def on_page_markdown(markdown, page, config, files):
    """Return a page's Markdown with what its marks stand for; mkdocs calls this for every page."""
    return with_generated(markdown)


def with_generated(markdown):
    """Return Markdown with what its marks stand for."""

    def text(mark):
        if mark["command"]:
            return flags_of(mark["command"])
        return {"builders": builders, "public names": public_names, "on github": str}[mark[1]]()

    return MARK.sub(text, markdown)


def flags_of(command):
    """Return a table for each group of a command's flags: name and default, then what `--help` says."""
    flags = importlib.import_module(f"kseg.commands.{command}_command").FLAGS
    groups = {}
    for module, members in flags.flags_by_module_dict().items():
        title = "" if module.startswith("kseg.") else module
        groups.setdefault(title, []).extend(members)
    lines = []
    for title, members in groups.items():
        if title:
            lines += [f"**{title}**", ""]
        lines += ["| flag | default | meaning |", "| --- | --- | --- |"]
        lines += [f"| `--{flag.name}` | {_default(flag)} | {_in_cell(_meaning(flag))} |" for flag in members]
        lines.append("")
    return "\n".join(lines)


def _default(flag):
    if flag.boolean:
        return "yes" if flag.default else "no"
    if flag.default in (None, "", []):
        return ""
    value = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
    return f"`{value}`"


def _meaning(flag):
    choices = getattr(flag.parser, "enum_values", None)
    text = re.sub(r"^<[\w|]+>: ", "", flag.help)  # absl puts the choices there
    if choices:
        text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    return text


def _in_cell(text):
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def public_names():
    """Return a section for every name of `kseg`, and for those of its public rooms."""
    package = _parsed("kseg")
    tables = {
        target.id: ast.literal_eval(node.value)
        for node in package.body
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name)
        if target.id in ("_MODULES", "_SUBMODULES")
    }
    lines = []
    for name, module in tables["_MODULES"].items():
        if name != "MODELS":
            lines += _section(f"kseg.{name}", *_found(module, name))
    for room in tables["_SUBMODULES"]:
        names = _names_of(f"kseg.{room}")
        if names:
            lines += [f"## `kseg.{room}`", "", ast.get_docstring(_parsed(f"kseg.{room}")), ""]
            for name in names:
                lines += _section(f"kseg.{room}.{name}", *_found(f"kseg.{room}", name))
    return "\n".join(lines)


def builders():
    """Return a section for every model that `--model` can name: its paper and its options."""
    names = _parsed("kseg.settings.model_names")
    files = next(
        ast.literal_eval(node.value)
        for node in names.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "MODEL_FILES"
    )
    lines = []
    for name, file in files.items():
        lines += _section(name, *_found(f"kseg.models.{file}", name))
    return "\n".join(lines)


def _path(module):
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _parsed(module):
    return ast.parse(_path(module).read_text(encoding="utf-8"))


def _definitions(module):
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name: node for node in _parsed(module).body if isinstance(node, kinds)}


def _names_of(module):
    """Return the public names of a room: those of `__all__`, else what it imports under its own name, else defines."""
    body = _parsed(module).body
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            names = ast.literal_eval(node.value)
            return [name for name in names if _found(module, name)[1] is not None]
    imported = [
        alias.asname for node in body if isinstance(node, ast.ImportFrom) for alias in node.names if alias.asname
    ]
    return imported or [name for name in _definitions(module) if not name.startswith("_")]


def _found(module, name):
    """Return (module, definition) of a name where its module, or a file of its room, defines it; else (module, None).

    A definition in the module itself wins, so that `kseg.train` is the function of `kseg.training.launch`.
    """
    if name in _definitions(module):
        return module, _definitions(module)[name]
    for node in _parsed(module).body:
        if isinstance(node, ast.ImportFrom) and any(name in (alias.asname, alias.name) for alias in node.names):
            return _found(node.module, name)
    folder = _path(module).parent
    for path in sorted(folder.glob("*.py")):
        other = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name != "__init__.py" and name in _definitions(other):
            return other, _definitions(other)[name]
    return module, None


def _section(title, module, node):
    if node is None:
        raise LookupError(f"{title} is not defined in {module}")
    call = f"{title}({_arguments(node)})"
    if isinstance(node, ast.ClassDef) and not _has_init(node):
        call = title
    if len(call) > WIDTH:
        call = f"{title}(\n    " + ",\n    ".join(_each_argument(node)) + ",\n)"
    return [f"### `{title}`", "", "```python", call, "```", "", *_docstring(node), ""]


def _has_init(node):
    return any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body)


def _each_argument(node):
    if isinstance(node, ast.ClassDef):
        node = next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)
        if node is None:
            return []
    text = ast.unparse(node.args)
    parts = ast.parse(f"def f({text}): pass").body[0].args
    found = []
    positional = parts.posonlyargs + parts.args
    defaults = [None] * (len(positional) - len(parts.defaults)) + parts.defaults
    found += [_argument(argument, default) for argument, default in zip(positional, defaults, strict=True)]
    if parts.vararg:
        found.append(f"*{parts.vararg.arg}")
    elif parts.kwonlyargs:
        found.append("*")
    found += [_argument(*pair) for pair in zip(parts.kwonlyargs, parts.kw_defaults, strict=True)]
    if parts.kwarg:
        found.append(f"**{parts.kwarg.arg}")
    return [argument for argument in found if argument != "self"]


def _argument(argument, default):
    return argument.arg if default is None else f"{argument.arg}={ast.unparse(default)}"


def _arguments(node):
    return ", ".join(_each_argument(node))


def _docstring(node):
    """Give a docstring's lines as Markdown: its sections in bold, an item of a section as one point of a list."""
    lines = (ast.get_docstring(node) or "").replace("<", "&lt;").replace("*", "\\*").split("\n")
    in_section = False
    for line in lines:
        section = SECTION.match(line)
        if section:
            yield from ("", f"**{section[1]}:** {section[2]}".rstrip())
            in_section = not section[2]
            if in_section:
                yield ""
        elif in_section and line.startswith("    ") and not line.startswith("     "):
            name, colon, text = line.strip().partition(": ")
            yield f"- `{name}`: {text}" if colon and "`" not in name else f"- {line.strip()}"
        elif in_section and line.strip():
            yield f"  {line.strip()}"
        else:
            yield line.strip() if not in_section else line
