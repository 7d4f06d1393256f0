"""Put numbers, styles and program into one HTML file."""

import html
import importlib.resources
import os
import re

from kseg.io.files import json_text, write_atomic, write_json
from kseg.reports.page.output_folder import INDEX, numbers_file
from kseg.reports.page.pictures import FIRST_COLOUR, OTHER_COLOUR

_SHARED = ("elements.js", "tables.js", "gallery.js", "viewer.js")
KINDS = {  # a page has KIND.html and these programs
    "comparison": (*_SHARED, "comparison.js"),
    "study": (*_SHARED, "charts.js", "study.js"),
}


def write_page(folder, kind, table):
    """Write index.html and KIND.json into a folder that has the pictures (`kseg.reports.page.pictures.Pictures`).

    The same table gives the same bytes.

    The page is opened from a disk, where a browser fetches no other files, so everything except the pictures is inside
    it. Its security policy forbids loading anything from elsewhere.

    Args:
        folder: exists. kind: of KINDS. table: what the page shows, JSON types, its "title" too; nan becomes null.
    """
    parts = {
        "title": html.escape(table["title"]),
        "style": _asset("page.css").replace("FIRST", _css(FIRST_COLOUR)).replace("OTHER", _css(OTHER_COLOUR)),
        "body": _asset(f"{kind}.html"),
        "images": _asset("images.html"),
        "viewer": _asset("viewer.html"),
        "file": numbers_file(kind),
        "numbers": json_text(table).replace("<", "\\u003c"),  # no text in it may end the element
        "program": "\n".join(map(_asset, KINDS[kind])),
    }
    page = _filled(_asset("page.html").replace("{{body}}", parts["body"]), parts)
    write_json(os.path.join(folder, numbers_file(kind)), table, indent=None)
    write_atomic(os.path.join(folder, INDEX), page.encode())


def _filled(template, parts):
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _asset(name):
    return (importlib.resources.files("kseg.reports.page") / "assets" / name).read_text(encoding="utf-8")


def _css(colour):
    return f"rgb({' '.join(map(str, colour))})"
