"""Put numbers, styles and program into one HTML file."""

import html
import importlib.resources
import os
import re

from kseg.io.files import json_text, write_atomic, write_json
from kseg.reports.page.output_folder import INDEX, NUMBERS
from kseg.reports.page.pictures import FIRST_COLOUR, OTHER_COLOUR

_PROGRAM = ("elements.js", "tables.js", "gallery.js", "viewer.js")


def write_page(folder, table):
    """Write index.html and comparison.json into a folder that has the pictures (`kseg.reports.page.pictures.Pictures`).

    The page is opened from a disk, where a browser fetches no other files, so everything except the pictures is inside
    it. Its security policy forbids loading anything from elsewhere.

    Args:
        folder: exists. table: what `kseg.reports.comparison.compare` found, JSON types; nan becomes null.
    """
    numbers = json_text(table)
    parts = {
        "title": html.escape(" against ".join(model["name"] for model in table["models"])),
        "style": _asset("page.css").replace("FIRST", _css(FIRST_COLOUR)).replace("OTHER", _css(OTHER_COLOUR)),
        "numbers": numbers.replace("<", "\\u003c"),  # no text in it may end the element
        "program": "\n".join(map(_asset, _PROGRAM)),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("page.html"))
    write_json(os.path.join(folder, NUMBERS), table, indent=None)
    write_atomic(os.path.join(folder, INDEX), page.encode())


def _asset(name):
    return (importlib.resources.files("kseg.reports.page") / "assets" / name).read_text(encoding="utf-8")


def _css(colour):
    return f"rgb({' '.join(map(str, colour))})"
