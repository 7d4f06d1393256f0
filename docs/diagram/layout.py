"""Where each unit goes: left to right in order, top to bottom by resolution; parallel branches share a column."""

import collections
import dataclasses
import math

from docs.diagram import graph

MARGIN, RESOLUTIONS = 20, 76  # pixels: around the picture; left of the first column, for the names of the rows
WIDTH, MOST_GAP, LEAST_GAP = 1200, 28, 5.5
TALLEST, SHORTEST, SHRINK = 112, 24, 0.76  # height of a box at 1/1, at least, and its factor per halving
LANE, LOOP, BELOW, BETWEEN = 11, 30, 20, 10  # above a row per lane of arcs and for loops; under it; between rows
HEAD, JOIN = 74, 14  # height of the title; diameter of a sum or concatenation
CHARACTER, LINE = 5.4, 13  # width of one and height of a line in the boxes' font


@dataclasses.dataclass(eq=False)
class Box:
    """A placed unit: left, top, width, height in pixels; its lines of text and whether they are written `upright`."""

    unit: graph.Unit
    column: int
    lines: list
    width: float = 0
    upright: bool = False
    slot: int = 0
    slots: int = 1
    left: float = 0
    top: float = 0
    height: float = 0

    @property
    def right(self):
        return self.left + self.width

    @property
    def bottom(self):
        return self.top + self.height

    @property
    def middle(self):
        return self.left + self.width / 2

    @property
    def center(self):
        return self.top + self.height / 2


@dataclasses.dataclass
class Row:
    """All of one resolution: top and height of its boxes, and of the band behind them."""

    reduction: int
    size: tuple
    top: float
    height: float
    band_top: float
    band_bottom: float


@dataclasses.dataclass
class Layout:
    """`boxes`: {unit: Box}; `rows`: {reduction: Row}; `lanes`: {edge: y of its arc}; the picture's size."""

    boxes: dict
    rows: dict
    lanes: dict
    width: float
    bottom: float


def place(units, edges):
    """The layout of a graph (`graph.read_graph`)."""
    columns = _columns(units, edges)
    boxes = {unit: Box(unit, columns[unit], _lines(unit)) for unit in units}
    _share_columns(boxes, edges)
    for box in boxes.values():
        box.width = _width(box)
    width = _place_columns(boxes)
    lanes = _lanes(boxes, edges)
    rows = _place_rows(boxes, lanes)
    for edge, lane in lanes.items():
        reduction = edge.target.reduction
        lanes[edge] = rows[reduction].top - _loops(boxes, reduction) - LANE * (lane + 1)
    return Layout(boxes, rows, lanes, width, max(row.band_bottom for row in rows.values()))


def _columns(units, edges):
    """As far right as the units after it allow: a scoring layer stands before its sum, not after its pooling."""
    targets = collections.defaultdict(list)
    for edge in edges:
        targets[edge.source].append(edge.target)
    columns = {}
    for unit in reversed(units):
        columns[unit] = min((columns[target] for target in targets[unit]), default=0) - 1
    first = min(columns.values())
    return {unit: column - first for unit, column in columns.items()}


def _share_columns(boxes, edges):
    """Give the units of one column and row a slot each; what is reached from afar is first, arcs come from above."""
    sources, targets = collections.defaultdict(list), collections.defaultdict(list)
    for edge in edges:
        sources[boxes[edge.target]].append(boxes[edge.source])
        targets[boxes[edge.source]].append(boxes[edge.target])
    cells = collections.defaultdict(list)
    for box in boxes.values():
        cells[box.column, box.unit.reduction].append(box)
    for key in sorted(cells):
        cells[key].sort(key=lambda box: _precedence(sources[box]))
        for slot, box in enumerate(cells[key]):
            box.slot, box.slots = slot, len(cells[key])
    for key in sorted(cells, reverse=True):  # one that leads to one of several stands in its line
        for box in cells[key] if len(cells[key]) == 1 else ():
            if not len(targets[box]) == len(sources[box]) == 1:
                continue
            (ahead,) = targets[box]
            (behind,) = sources[box]
            if ahead.slots > 1 and len(targets[behind]) > 1 and ahead.unit.reduction == box.unit.reduction:
                box.slot = ahead.slot
                box.slots = ahead.slots


def _precedence(sources):
    """From afar first, then in the order of the branches."""
    return min((source.column for source in sources), default=0), max((source.slot for source in sources), default=0)


def _lines(unit):
    """What is written in its box."""
    if unit.kind in graph.CONVOLUTIONS:
        kernel, rate = unit.config["kernel_size"], max(unit.config["dilation_rate"])
        return ["×".join(map(str, kernel))] + ([f"rate {rate}"] if rate > 1 else [])
    if unit.kind == "pyramid":
        return ["1×1", *(f"3×3 rate {rate}" for rate in unit.config["dilation_rates"]), "mean, 1×1", "all, 1×1"]
    return {"image": ["image"], "mean": ["mean"], "other": [unit.name]}.get(unit.kind, [])


def _width(box):
    if box.unit.kind in graph.JOINS:
        return JOIN
    if not box.lines:
        return 9
    if box.slots > 1:
        box.lines = [" ".join(box.lines)]
    elif box.unit.kind != "pyramid":
        box.upright = True
        return 3 + 11 * len(box.lines) + 2.2 * max(math.log2(max(box.unit.shape[2], 1)) - 6, 0)
    return max(24, CHARACTER * max(map(len, box.lines)) + 9)


def _place_columns(boxes):
    """Set every `left`; returns the width of the picture."""
    widths = collections.defaultdict(float)
    for box in boxes.values():
        widths[box.column] = max(widths[box.column], box.width)
    room = WIDTH - 2 * MARGIN - RESOLUTIONS - sum(widths.values())
    gap = min(max(room / max(len(widths) - 1, 1), LEAST_GAP), MOST_GAP)
    left, x = {}, MARGIN + RESOLUTIONS
    for column in sorted(widths):
        left[column] = x
        x += widths[column] + gap
    for box in boxes.values():
        box.left = left[box.column] + (widths[box.column] - box.width) / 2
    return max(WIDTH, x - gap + MARGIN + BETWEEN)


def _lanes(boxes, edges):
    """{edge: number of its lane} of what passes above boxes, for the row of its target; the shorter are lower."""
    arcs = [edge for edge in edges if edge.kind in ("skip", "residual") or _is_obstructed(boxes, edge)]
    spans = {edge: (boxes[edge.source].middle, boxes[edge.target].middle) for edge in arcs}
    lanes = {}
    for edge in sorted(arcs, key=lambda edge: spans[edge][1] - spans[edge][0]):
        start, end = spans[edge]
        crossed = (
            lanes[other]
            for other in lanes
            if other.target.reduction == edge.target.reduction and spans[other][0] < end and start < spans[other][1]
        )
        lanes[edge] = 1 + max(crossed, default=-1)
    return lanes


def _is_obstructed(boxes, edge):
    """Whether boxes stand between the two in the row of the target, which is not above that of the source."""
    source, target = boxes[edge.source], boxes[edge.target]
    between = (
        box
        for box in boxes.values()
        if source.column < box.column < target.column and box.unit.reduction == target.unit.reduction
    )
    in_line = any(1 in (box.slots, target.slots) or box.slot == target.slot for box in between)
    return in_line and edge.kind != "indices" and source.unit.reduction <= target.unit.reduction


def _loops(boxes, reduction):
    """Height that the loops of recurrent convolutions take above the row."""
    return LOOP if any(u.applications > 1 and u.reduction == reduction for u in boxes) else 0


def _place_rows(boxes, lanes):
    """Set every `top` and `height`; returns {reduction: Row}."""
    rows, y = {}, HEAD
    for reduction in sorted({unit.reduction for unit in boxes}):
        arcs = [lane for edge, lane in lanes.items() if edge.target.reduction == reduction]
        top = y + BETWEEN + _loops(boxes, reduction) + LANE * (max(arcs, default=-1) + 1)
        own = max(TALLEST * SHRINK ** math.log2(reduction), SHORTEST)
        cells = [box for box in boxes.values() if box.unit.reduction == reduction]
        height = max(own, *(max(20 * box.slots, LINE * len(box.lines) + 8) for box in cells if not box.upright), 0)
        size = next((box.unit.shape[:2] for box in cells if box.unit.shape[:2] != (1, 1)), (1, 1))
        rows[reduction] = Row(reduction, size, top, height, y, top + height + BELOW)
        for box in cells:
            block = height if box.unit.kind == "pyramid" else max(own, 20 * box.slots)
            pitch = (block + 5) / box.slots
            box.top, box.height = top + (height - block) / 2 + pitch * box.slot, pitch - 5
            if box.unit.kind in graph.JOINS:
                box.top, box.height = box.center - box.width / 2, box.width
        y = rows[reduction].band_bottom + BETWEEN
    return rows
