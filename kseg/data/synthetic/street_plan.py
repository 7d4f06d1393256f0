"""The plan of a drawn street: the ground's lines, houses and gardens, what stands where, who hides whom."""

import functools

import numpy as np
from PIL import Image, ImageDraw

from kseg.data.synthetic import street_objects as objects
from kseg.data.synthetic.street_canvas import FAR, any_colour
from kseg.data.synthetic.street_surfaces import Ground
from kseg.data.synthetic.street_walls import facade, fencing, masonry

UNLABELLED = 0
BUILDING = 11
WALL = 12
FENCE = 13  # Cityscapes ids


def nearest_first(boxes):
    """An order to paint boxes on the ground in, (n, 4) x from, to, z from, to: none before one that hides it.

    Of two boxes that a line parallel to the view or across it separates, the camera at x 0, z 0 sees the one on its
    own side whole. Boxes that hide no part of each other come in the order of their nearest ends, and so do those that
    reach into each other.
    """
    boxes = np.asarray(boxes, float).reshape(-1, 4)
    left, right, near, far = (column[:, None] for column in boxes.T)
    slopes = boxes[:, [0, 0, 1, 1]] / boxes[:, [2, 3, 2, 3]]
    lowest = slopes.min(1)[:, None]
    highest = slopes.max(1)[:, None]
    ahead = far <= near.T
    beside = ((right <= left.T) & (right > 0)) | ((left >= right.T) & (left < 0))
    first = (ahead | (beside & ~ahead.T)) & (lowest < highest.T) & (highest > lowest.T)
    waits = first.sum(0)
    distance = near[:, 0]
    order = []
    todo = np.ones(len(boxes), bool)
    while todo.any():
        ready = todo & (waits == 0)
        choice = np.flatnonzero(ready if ready.any() else todo)
        k = choice[np.argmin(distance[choice])]
        order.append(int(k))
        todo[k] = False
        waits = waits - first[k]
    return order


class Street:
    """One street from its kerbs outward, the shadows on its ground, and the list of what to paint."""

    def __init__(self, canvas):
        self.canvas = canvas
        self.rng = canvas.rng
        self.camera = canvas.camera
        self.shadow = Image.new("L", (canvas.width, canvas.height))
        self.pen = ImageDraw.Draw(self.shadow)
        self.things = []
        self.end = []
        self.vehicles = []
        leaves = [
            (0.2, 0.4, 0.12),
            (0.28, 0.44, 0.15),
            (0.14, 0.3, 0.15),
            (0.36, 0.42, 0.12),
        ]
        self.leaves = np.array(leaves) * self.rng.uniform(0.85, 1.15)
        self.plan_ground()
        for side in (0, 1):
            self.plan_lots(side)
        self.plan_end()

    def plan_ground(self):
        """Kerbs, house fronts, now and then a side street, grass along the road, rails."""
        rng = self.rng
        edges = (-rng.uniform(2.2, 4.4), rng.uniform(2.2, 4.4))
        crossing = None
        if rng.uniform() < 0.35:
            start = rng.uniform(12, 20)
            crossing = (start, start + rng.uniform(6, 9))
        fronts = []
        strips = []
        for kerb, sign in zip(edges, (-1, 1), strict=True):
            wide = rng.uniform(2.8, 5)
            if rng.uniform() < 0.5:
                wide += 2.2
                strip = rng.uniform(2.2, 3.6)
                start = rng.choice([0.2, wide - strip])
                strips.append(sorted((kerb + sign * start, kerb + sign * (start + strip))))
            fronts.append(kerb + sign * wide)
        self.edges = edges
        self.fronts = fronts
        self.lanes = (0.5 * edges[0], 0.5 * edges[1])
        rails = list(self.lanes) if rng.uniform() < 0.6 else []
        across = None
        if crossing is not None and rng.uniform() < 0.6:
            across = sum(crossing) / 2
        self.ground = Ground(edges, crossing, strips, [], rails, across)

    def paint(self):
        """Paints everything, nearest first, and the end of the street last."""
        for k in nearest_first([box for box, _ in self.things]):
            for paint in self.things[k][1]:
                paint()
        for paint in self.end:
            paint()

    def add(self, box, paint, *arguments):
        """Something that stands on box (x, x, z, z) and is painted by paint(canvas, *arguments)."""
        self.things.append((box, [functools.partial(paint, self.canvas, *arguments)]))

    def inside(self, x, low, high):
        """A distance (m) between low and high at which x lies within the picture."""
        camera = self.camera
        width = self.canvas.width
        side = width - camera.centre if x > 0 else camera.centre
        nearest = max(low, abs(x) * camera.focal / (side - 0.04 * width))
        return self.rng.uniform(nearest, max(high, nearest + 2))

    def cast(self, footprint, high):
        """The shadow on the ground of something `high` metres tall over footprint [(x, z), ...]."""
        light = self.canvas.light
        foot = np.array(footprint, float)
        head = foot + np.array([light.across, light.along]) * high
        sides = [np.array([foot[i - 1], foot[i], head[i], head[i - 1]]) for i in range(len(foot))]
        for polygon in (foot, head, *sides):
            column, row = self.camera.project(polygon[:, 0], 0, polygon[:, 1])
            self.pen.polygon(np.stack([column, row], 1).ravel().tolist(), fill=255)

    def leaf(self):
        """A leaf colour: one of the season's, a little off."""
        return self.leaves[self.rng.integers(len(self.leaves))] * self.rng.uniform(0.75, 1.25)

    def grass(self):
        """The colour of grass: paler and yellower than leaves."""
        return 0.4 * self.leaf() + (0.42, 0.42, 0.12)

    def plan_end(self):
        """Where the street ends: a row of houses across, or trees; something unlabelled in the distance."""
        rng = self.rng
        canvas = self.canvas
        x = rng.uniform(*self.edges)
        tone = any_colour(rng)
        face = (x - 3, FAR), (x + 3, FAR), (0, rng.uniform(2.5, 4)), UNLABELLED, lambda along, up, scale: tone
        self.end.append(functools.partial(canvas.wall, *face))
        if rng.uniform() < 0.5:
            x = -70.0
            z = FAR + 8
            while x < 70:
                wide = rng.uniform(9, 22)
                face = (x, z), (x + wide, z), (-3, rng.uniform(7, 16)), BUILDING, facade(rng)
                self.end.append(functools.partial(canvas.wall, *face))
                x += wide
        else:
            for x in np.arange(-60, 61, 20.0):
                place = (x - 14, FAR + 10), (x + 14, FAR + 9), rng, rng.uniform(7, 13), self.leaf()
                self.end.append(functools.partial(objects.hedge, canvas, *place))

    def plan_lots(self, side):
        """Houses and gardens along one side, from near to far; some sides have one wall, fence or lawn all along."""
        rng = self.rng
        sign = 2 * side - 1
        crossing = self.ground.crossing or (FAR, FAR)
        style = rng.choice(["mixed", "wall", "fence", "lawn"], p=[0.5, 0.23, 0.19, 0.08])
        border = self.border(style)
        z = 2.0
        last_open = rng.uniform() < 0.5
        kinds = []
        beside = 14.0
        while z < FAR:
            deep = rng.uniform(6, 13)
            opened = rng.uniform() < (0.15 if last_open else 0.6)
            if z < crossing[0] < z + deep + 2:
                deep = max(crossing[0] - z, 1)
            front = self.fronts[side] + sign * rng.uniform(0, 1.5)
            if style != "mixed" and (z < 35 or opened):
                opened = True
                lot = self.open_lot(border, self.fronts[side], sign, z, deep)
            elif opened:
                if not kinds:
                    kinds = list(rng.permutation(["hedge", "wall", "wall", "fence", "lawn"]))
                lot = self.open_lot(self.border(kinds.pop()), front, sign, z, deep)
            else:
                lot = self.house(front, sign, z, deep, beside)
            self.things.append(((*sorted((front, front + sign * 50)), z, z + deep), lot))
            z += deep
            last_open = opened
            beside = 14.0
            if crossing[0] - 0.5 < z < crossing[1]:
                z = crossing[1]
                beside = 40.0
                last_open = True

    def border(self, kind):
        """What stands between sidewalk and garden: [(heights, label, texture)] for `Canvas.wall`; None for a hedge."""
        rng = self.rng
        if kind == "hedge":
            return None
        if kind == "fence":
            high = rng.uniform(1.2, 2.5)
            return [((0, high), FENCE, fencing(rng, high))]
        if kind == "wall":
            high = rng.uniform(1.4, 3.2)
            faces = [((0, high), WALL, masonry(rng, high))]
            if high < 1.8 and rng.uniform() < 0.4:
                top = high + rng.uniform(0.6, 1.1)
                faces.append(((high, top), FENCE, fencing(rng, top)))
            return faces
        return []

    def house(self, front, sign, z, deep, beside=14.0):
        """What paints a house: its front at x, and `beside` metres of the side that faces the camera."""
        rng = self.rng
        high = rng.uniform(4.5, 15)
        corner = (front, z)
        if sign * self.canvas.light.across < 0:
            self.cast([(front, z), (front, z + deep), (front + sign * 8, z + deep)], high)
        return [
            functools.partial(self.canvas.wall, corner, end, (0, high), BUILDING, facade(rng))
            for end in ((front + sign * beside, z), (front, z + deep))
        ]

    def open_lot(self, border, front, sign, z, deep):
        """What paints a garden behind a border, or an open lawn; trees; a house or bushes at its back."""
        rng = self.rng
        canvas = self.canvas
        ends = (front, z), (front, z + deep)
        if border is None:
            lot = [self.bushes(front + sign * 0.6, z, deep, rng.uniform(1.0, 2.2))]
        else:
            lot = [functools.partial(canvas.wall, *ends, *face) for face in border]
        for heights, _, _ in border or ():
            self.cast(ends, heights[1])
        back = rng.uniform(5, 10)
        self.ground.lawns.append((*sorted((front, front + sign * (back + 1))), z, z + deep))
        if rng.uniform() < 0.6:
            shape = rng.uniform(4.5, 9), rng.uniform(2, 3.4), self.leaf()
            place = front + sign * rng.uniform(1.5, 4), z + deep * rng.uniform(0.2, 0.9)
            lot.append(functools.partial(objects.tree, canvas, *place, rng, *shape))
        if rng.uniform() < 0.75:
            return lot + self.house(front + sign * back, sign, z, deep)
        return [*lot, self.bushes(front + sign * back, z, deep, rng.uniform(2, 5))]

    def bushes(self, x, z, deep, high):
        """What paints a hedge along the street."""
        return functools.partial(objects.hedge, self.canvas, (x, z + deep), (x, z + 0.5), self.rng, high, self.leaf())
