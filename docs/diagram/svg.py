"""The picture itself: one SVG with its own background, by the standard library."""

import itertools
import os
import xml.etree.ElementTree as ET

from docs.diagram import graph, layout, style
from kseg.io.files import write_atomic

FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
RADIUS = 6


def draw_architecture(model, path):
    """Draws a built functional model as an SVG: its convolutions, resolutions and what joins them across.

    Boxes stand left to right in order and top to bottom by resolution; those of one kernel applied several times are
    one box with a loop. Everything is read from the model's layers and connections (`model.get_config`). Elements
    carry classes (conv, recurrent, pool, skip, indices, ...) and data-* attributes (layer, channels, from, to).

    Args: `model`: functional keras.Model of one image input, height and width fixed. `path`: of the .svg to write.
    Raises: ValueError where the model is not functional or its size is free.
    """
    units, edges = graph.read_graph(model)
    placed = layout.place(units, edges)
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "font-family": FONT, "font-size": "10"})
    _markers(root)
    canvas = ET.SubElement(root, "g")
    _heading(canvas, model, units)
    _bands(canvas, placed)
    for edge in edges:
        _edge(canvas, edge, placed)
    for box in placed.boxes.values():
        _box(canvas, box)
    _channels(canvas, placed.boxes.values())
    bottom = _legend(canvas, units, edges, placed)
    size = {"width": _number(placed.width), "height": _number(bottom)}
    root.attrib |= size | {"viewBox": f"0 0 {size['width']} {size['height']}", "role": "img", "aria-label": model.name}
    background = ET.Element("rect", size | {"rx": "12", "fill": "#ffffff", "stroke": "#cbd5e1"})
    root.insert(1, background)
    ET.indent(root)
    write_atomic(os.fspath(path), ET.tostring(root, encoding="utf-8") + b"\n")


def _number(value):
    return f"{value:.1f}".removesuffix(".0")


def _add(parent, tag, text=None, **attributes):
    """A child element; numbers are written with one digit, underscores in names as hyphens."""
    shown = {
        name.rstrip("_").replace("_", "-"): value if isinstance(value, str) else _number(value)
        for name, value in attributes.items()
    }
    child = ET.SubElement(parent, tag, shown)
    child.text = text
    return child


def _text(parent, x, y, text, anchor="middle", fill="#334155", **attributes):
    return _add(parent, "text", text, x=x, y=y, text_anchor=anchor, fill=fill, **attributes)


def _markers(root):
    definitions = ET.SubElement(root, "defs")
    colors = {"flow": style.FLOW, "recurrent": style.FILLS["recurrent"][0]}
    colors |= {kind: color for kind, (color, _, _) in style.STROKES.items()}
    for name, color in colors.items():
        size = {"markerWidth": "5", "markerHeight": "5", "refX": "4.6", "refY": "2.5", "orient": "auto"}
        marker = _add(definitions, "marker", id=f"arrow-{name}", markerUnits="userSpaceOnUse", **size)
        _add(marker, "path", d="M0 0 L5 2.5 L0 5 Z", fill=color)


def _heading(canvas, model, units):
    height, width, channels = units[0].shape
    classes = next(unit.shape[2] for unit in units if unit.is_output)
    about = (
        f"{height}×{width}×{channels} image → {classes} classes, "
        f"{graph.parameters(model) / 1e6:.1f} million trainable parameters"
    )
    left = layout.MARGIN
    _text(canvas, left, 34, model.name, "start", style.DARK, font_size="22", font_weight="bold")
    _text(canvas, left, 54, about, "start", "#475569", font_size="13")


def _bands(canvas, placed):
    for row in placed.rows.values():
        attributes = {"rx": "6", "fill": "#f1f5f9", "class_": "resolution"}
        width = placed.width - 2 * BAND
        _add(canvas, "rect", x=BAND, y=row.band_top, width=width, height=row.band_bottom - row.band_top, **attributes)
        y = row.top + row.height / 2
        _text(canvas, layout.MARGIN, y, f"1/{row.reduction}", "start", style.DARK, font_size="13", font_weight="bold")
        _text(canvas, layout.MARGIN, y + 14, "×".join(map(str, row.size)), "start", "#475569", font_size="11")


BAND = 8  # from the picture's edge to the bands


def _box(canvas, box):
    unit, look = box.unit, style.class_of(box.unit)
    data = {"data-layer": unit.name, "data-channels": unit.shape[2], "data-resolution": f"1/{unit.reduction}"}
    if unit.applications > 1:
        data["data-applications"] = unit.applications
    group = _add(canvas, "g", class_=look, **{name: str(value) for name, value in data.items()})
    _add(group, "title", f"{unit.name}: {'×'.join(map(str, unit.shape))}")
    if look in style.JOINS:
        _join(group, box.middle, box.center, look)
        return
    shape = {"x": box.left, "y": box.top, "width": box.width, "height": box.height, "rx": "2"}
    _add(group, "rect", **shape, fill=style.FILLS[look][0])
    turn = {"transform": f"rotate(-90 {_number(box.middle)} {_number(box.center)})"} if box.upright else {}
    pitch = 11 if box.upright else layout.LINE
    for number, line in enumerate(box.lines):
        y = box.center + 3.5 + pitch * (number - (len(box.lines) - 1) / 2)
        _text(group, box.middle, y, line, fill=style.TEXTS.get(look, "#ffffff"), **turn)
    if unit.applications > 1:
        _loop(group, box, unit.applications)


def _join(group, x, y, look):
    _add(group, "circle", cx=x, cy=y, r=layout.JOIN / 2, fill="#ffffff", stroke=style.FLOW)
    _text(group, x, y + 3.6, style.JOINS[look][0], fill=style.DARK, font_size="11", font_weight="bold")


def _loop(group, box, times):
    """From the box' top right back to its top left, and how often the kernel is applied."""
    left, right, top = box.left + 2, box.right - 2, box.top
    color = style.FILLS["recurrent"][0]
    path = f"M{_number(right)} {_number(top)} C{_number(right + 5)} {_number(top - 17)} "
    path += f"{_number(left - 5)} {_number(top - 17)} {_number(left)} {_number(top - 1)}"
    _add(group, "path", d=path, fill="none", stroke=color, stroke_width="1.2", marker_end="url(#arrow-recurrent)")
    _text(group, box.middle, top - 15, f"×{times}", fill=color, class_="applications", font_weight="bold")


def _edge(canvas, edge, placed):
    source, target = placed.boxes[edge.source], placed.boxes[edge.target]
    color, dash, _ = style.STROKES.get(edge.kind, (style.FLOW, "", ""))
    if edge in placed.lanes:
        y = placed.lanes[edge]
        x, end = source.middle + 2.5, target.middle - 2.5
        start = source.top if source.unit.reduction == target.unit.reduction else source.bottom
        points = [(x, start), (x, y), (end, y), (end, target.top)]
    elif edge.kind == "indices":
        points = [(source.middle, source.top), (source.middle, target.center), (target.left, target.center)]
    elif target.unit.reduction > source.unit.reduction:
        x = source.middle if source.unit.kind in graph.JOINS else source.right - 3
        points = [(x, source.bottom), (x, target.center), (target.left, target.center)]
    elif target.unit.reduction < source.unit.reduction:
        x = target.middle if target.unit.kind in graph.JOINS or target.width < 12 else target.right - 4
        points = [(source.right, source.center), (x, source.center), (x, target.bottom)]
    elif target.unit.kind in graph.JOINS or abs(source.center - target.center) < 0.5:
        points = _towards_join(source, target)
    else:  # to one of several branches
        x = source.right + layout.LEAST_GAP / 2
        points = [(source.right, source.center), (x, source.center), (x, target.center), (target.left, target.center)]
    attributes = {"fill": "none", "stroke": color, "stroke_width": "1.2", "marker_end": f"url(#arrow-{edge.kind})"}
    if dash:
        attributes["stroke_dasharray"] = dash
    data = {"data-from": edge.source.name, "data-to": edge.target.name}
    data["data-resolution"] = f"1/{edge.target.reduction}"
    _add(canvas, "path", class_=edge.kind, d=_rounded(points), **attributes, **data)


def _towards_join(source, target):
    if abs(source.center - target.center) < 0.5:
        return [(source.right, source.center), (target.left, target.center)]
    x = target.middle
    edge = target.top if source.center < target.center else target.bottom
    return [(source.right, source.center), (x, source.center), (x, edge)]


def _rounded(points):
    """A path through points with rounded corners."""
    parts = [f"M{_number(points[0][0])} {_number(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        for toward, command in ((before, "L"), (after, "Q")):
            length = max(abs(toward[0] - corner[0]), abs(toward[1] - corner[1]))
            share = min(RADIUS, length / 2) / length if length else 0
            x, y = (corner[i] + (toward[i] - corner[i]) * share for i in (0, 1))
            middle = f"{_number(corner[0])} {_number(corner[1])} " if command == "Q" else ""
            parts.append(f"{command}{middle}{_number(x)} {_number(y)}")
    return " ".join([*parts, f"L{_number(points[-1][0])} {_number(points[-1][1])}"])


def _channels(canvas, boxes):
    """The number of channels under each run of neighbours that have the same."""
    shown = [box for box in boxes if box.unit.is_output or box.lines]
    shown.sort(key=lambda box: (box.unit.reduction, box.column, box.slot))
    for _, run in itertools.groupby(shown, lambda box: (box.unit.reduction, box.unit.shape[2])):
        last = None
        for box in run:
            if last is None or box.column > last.column + 1:
                place = box.unit.reduction, box.column
                y = 13 + max(other.bottom for other in boxes if (other.unit.reduction, other.column) == place)
                x = box.left if box.lines else box.right  # an arrow comes to the middle of the last upsampling
                _text(canvas, x, y, str(box.unit.shape[2]), "start", class_="channels", font_size="11")
            last = box


def _legend(canvas, units, edges, placed):
    """Only what occurs, in rows under the picture; returns the y below it."""
    styles, kinds = {style.class_of(unit) for unit in units}, {edge.kind for edge in edges}
    shown = styles - {"image", "mean"}  # they say it themselves
    entries = [(key, style.label_of(key, label, units)) for key, (_, label) in style.FILLS.items() if key in shown]
    entries += [(key, label) for key, (_, label) in style.JOINS.items() if key in styles]
    entries += [(key, label) for key, (_, _, label) in style.STROKES.items() if key in kinds]
    x, y = layout.MARGIN, placed.bottom + 26
    for key, label in entries:
        width = 34 + 6.2 * len(label) + 18
        if x + width > placed.width:
            x, y = layout.MARGIN, y + 22
        group = _add(canvas, "g", class_="legend")
        if key in style.FILLS:
            _add(group, "rect", x=x + 8, y=y - 7, width=14, height=14, rx=2, fill=style.FILLS[key][0])
        elif key in style.JOINS:
            _join(group, x + 15, y, key)
        else:
            color, dash, _ = style.STROKES[key]
            line = {"stroke": color, "stroke_width": "1.2", "marker_end": f"url(#arrow-{key})"}
            _add(group, "path", d=f"M{x} {_number(y)} h26", **line, **({"stroke_dasharray": dash} if dash else {}))
        _text(group, x + 34, y + 4, label, "start", font_size="12")
        x += width
    return y + 24
