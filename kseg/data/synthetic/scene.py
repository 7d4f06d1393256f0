"""Procedural street scenes with Cityscapes label ids: perspective, light, shadow, texture, overlap."""

import functools

import numpy as np
from PIL import Image, ImageDraw

from kseg.data.synthetic import street_objects as objects
from kseg.data.synthetic import street_surfaces as surfaces
from kseg.data.synthetic.street_canvas import FAR, Camera, Canvas, Light, any_colour
from kseg.io.errors import InputError

UNLABELLED = 0
BUILDING = 11  # Cityscapes ids


def draw_street(seed, height, width):
    """Draws one street scene; the same seed, height and width always give the same picture.

    Args:
        seed: int or sequence of ints, as `numpy.random.default_rng` takes.
        height, width: size in pixels, at least 48 x 64.

    Returns:
        image uint8 (height, width, 3) RGB; label_ids uint8 (height, width), Cityscapes ids, not train ids,
        void among them; instance_ids uint16 (height, width): id * 1000 + k for people and cars, else the id.

    Raises:
        ValueError: a smaller picture.
    """
    if height < 48 or width < 64:
        raise InputError(
            f"Streets must be at least 48 high and 64 wide, got {height}x{width}. Ask for a larger picture."
        )
    rng = np.random.default_rng(seed)
    camera = Camera(
        focal=width * rng.uniform(0.7, 0.95),
        centre=width * rng.uniform(0.36, 0.64),
        horizon=height * rng.uniform(0.33, 0.6),
        eye=rng.uniform(1.15, 1.9),
        roll=rng.uniform(-0.04, 0.04),
        bend=rng.uniform(-0.004, 0.004),
    )
    mood = surfaces.mood_of(rng)
    strength = mood["sun"] * rng.uniform(0.6, 1.0)
    light = Light(
        across=rng.choice([-1, 1]) * rng.uniform(0.3, 1.6),
        along=rng.uniform(-0.8, 0.8),
        strength=strength,
        haze=(mood["low"] * rng.uniform(0.8, 1.0)).astype(np.float32),
        haze_metres=rng.choice([70.0, 150.0, 400.0]),
    )
    canvas = Canvas(rng, height, width, camera, light)
    street = _Street(canvas)
    surfaces.paint_bonnet(canvas)
    for _, paint in sorted(street.things, key=lambda thing: thing[0]):
        paint()
    for paint in street.lots:
        paint()
    surfaces.paint_ground(canvas, street.edges, street.shadow)
    surfaces.paint_sky(canvas, mood)
    surfaces.mark_rim(canvas)
    return surfaces.expose(canvas, mood), canvas.labels, canvas.instances


class _Street:
    """The plan of one street: the ground's lines, what stands where, and the shadows that it throws."""

    def __init__(self, canvas):
        self.canvas = canvas
        self.rng = canvas.rng
        self.camera = canvas.camera
        rng = self.rng
        self.edges = (-rng.uniform(1.9, 4.6), rng.uniform(1.9, 4.6))
        self.fronts = (self.edges[0] - rng.uniform(2.5, 5.5), self.edges[1] + rng.uniform(2.5, 5.5))
        self.shadow = Image.new("L", (canvas.width, canvas.height))
        self.pen = ImageDraw.Draw(self.shadow)
        self.lots = []
        self.things = []
        leaves = [
            (0.24, 0.42, 0.14),
            (0.36, 0.46, 0.18),
            (0.16, 0.3, 0.16),
            (0.62, 0.42, 0.12),
            (0.56, 0.26, 0.12),
        ]
        self.leaves = np.array(leaves) * rng.uniform(0.7, 1.3)
        for side in (0, 1):
            self.plan_lots(side)
        self.plan_end()
        self.plan_traffic()
        self.plan_sidewalks()

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

    def plan_end(self):
        """Where the street ends: a row of houses across, or trees; something unlabelled in the distance."""
        rng = self.rng
        canvas = self.canvas
        x = rng.uniform(*self.edges)
        tone = any_colour(rng)
        face = (x - 3, FAR), (x + 3, FAR), (0, rng.uniform(2.5, 4)), UNLABELLED, lambda along, up, scale: tone
        self.lots.append(functools.partial(canvas.wall, *face))
        if rng.uniform() < 0.5:
            x = -70.0
            end = FAR + 8
            while x < 70:
                wide = rng.uniform(9, 22)
                face = (x, end), (x + wide, end), (-3, rng.uniform(7, 16)), BUILDING, surfaces.facade(rng)
                self.lots.append(functools.partial(canvas.wall, *face))
                x += wide
        else:
            for x in np.arange(-60, 61, 20.0):
                place = (x - 14, FAR + 10), (x + 14, FAR + 9), rng, rng.uniform(7, 13), self.leaf()
                self.lots.append(functools.partial(objects.hedge, canvas, *place))

    def plan_lots(self, side):
        """Houses and gardens along one side, from near to far."""
        rng = self.rng
        canvas = self.canvas
        sign = 2 * side - 1
        z = 2.0
        last_garden = rng.uniform() < 0.5
        while z < FAR:
            garden = not last_garden and rng.uniform() < 0.6
            front = self.fronts[side] + sign * rng.uniform(0, 1.5)
            if garden:
                deep = rng.uniform(6, 11)
                ends = (front + sign * 0.6, z + deep), (front + sign * 0.6, z + 0.5)
                shape = rng.uniform(1.0, 2.2), self.leaf()
                self.lots.append(functools.partial(objects.hedge, canvas, *ends, rng, *shape))
                for place in (z + deep * rng.uniform(0.1, 0.4), z + deep * rng.uniform(0.5, 0.9)):
                    shape = rng.uniform(4.5, 9), rng.uniform(2, 3.4), self.leaf()
                    x = front + sign * rng.uniform(1, 4)
                    self.lots.append(functools.partial(objects.tree, canvas, x, place, rng, *shape))
            else:
                deep = rng.uniform(7, 16)
                high = rng.uniform(4.5, 15)
                corner = (front, z)
                for end in ((front + sign * 14, z), (front, z + deep)):
                    wall = corner, end, (0, high), BUILDING, surfaces.facade(rng)
                    self.lots.append(functools.partial(canvas.wall, *wall))
                if sign * canvas.light.across < 0:
                    self.cast([(front, z), (front, z + deep), (front + sign * 8, z + deep)], high)
            z += deep
            last_garden = garden

    def leaf(self):
        """A leaf colour: one of the season's, a little off."""
        return self.leaves[self.rng.integers(len(self.leaves))] * self.rng.uniform(0.75, 1.25)

    def plan_traffic(self):
        """Cars parked at the kerb, driving, sometimes crossing; none through another."""
        rng = self.rng
        canvas = self.canvas
        spots = []
        for side in (0, 1):
            x = self.edges[side] - (2 * side - 1) * 1.1
            z = self.inside(x, 6.5, 9)
            while z < 34 and abs(self.edges[side]) > 3.0:
                if rng.uniform() < 0.45:
                    spots.append((x, z, rng.choice([0, np.pi]) + rng.uniform(-0.05, 0.05)))
                z += rng.uniform(5.2, 8)
        for _ in range(rng.integers(1, 4) if spots else 2):
            x = rng.uniform(self.edges[0] * 0.45, self.edges[1] * 0.45)
            spots.append((x, self.inside(x, 8, 24), rng.choice([0, np.pi]) + rng.uniform(-0.3, 0.3)))
        if rng.uniform() < 0.3:
            spots.append((rng.uniform(-5, 5), rng.uniform(11, 22), np.pi / 2 * rng.choice([-1, 1])))
        for n, (x, z, turn) in enumerate(spots):
            if any(abs(x - a) < 2.2 and abs(z - b) < 5.5 for a, b, _ in spots[:n]):
                continue
            colour = any_colour(rng, (0, 0.9), (0.06, 0.98)) * rng.uniform(0.7, 1)
            self.things.append((z, functools.partial(objects.car, canvas, x, z, turn, colour, rng)))
            half = (1.0, 2.1) if abs(np.cos(turn)) > 0.5 else (2.1, 1.0)
            box = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half + (x, z)
            self.cast(box, 1.2 if canvas.light.strength > 0.15 else 0.05)

    def plan_sidewalks(self):
        """People, poles, signs and trees along both kerbs; now and then someone on the road."""
        rng = self.rng
        canvas = self.canvas
        for side in (0, 1):
            kerb = self.edges[side]
            front = self.fronts[side]
            metal = any_colour(rng, (0, 0.2), (0.15, 0.85))
            for _ in range(rng.integers(2, 4)):
                x = kerb + (front - kerb) * rng.uniform(0.05, 0.3)
                z = self.inside(x, 5.5, 11)
                high = rng.choice([2.8, 3.2, 5.5, 7.0])
                thick = rng.uniform(0.2, 0.32)
                post = x, z, rng, high, thick, metal
                self.things.append((z, functools.partial(objects.pole, canvas, *post)))
                self.cast([(x - thick / 2, z), (x + thick / 2, z)], high)
                if rng.uniform() < 0.75:
                    size = rng.uniform(0.75, 1.15)
                    plate = x, min(high, rng.uniform(2.3, 3.0)) - size / 2 + 0.1, z, rng, size
                    self.things.append((z - 0.05, functools.partial(objects.sign, canvas, *plate)))
            for _ in range(rng.integers(2, 5)):
                x = kerb + (front - kerb) * rng.uniform(0.2, 0.9)
                if rng.uniform() >= 0.75:
                    x = rng.uniform(*self.edges)
                z = self.inside(x, 5, 9.5)
                self.things.append((z, functools.partial(objects.person, canvas, x, z, rng)))
                self.cast([(x - 0.25, z), (x + 0.25, z)], 1.7)
            if rng.uniform() < 0.5:
                for z in np.arange(rng.uniform(10, 18), 50, rng.uniform(8, 14)):
                    x = kerb + (front - kerb) * 0.3
                    high = rng.uniform(5, 8)
                    spread = rng.uniform(1.5, 2.4)
                    place = x, z, rng, high, spread, self.leaf()
                    self.things.append((z, functools.partial(objects.tree, canvas, *place)))
                    self.cast([(x - spread, z), (x, z - spread), (x + spread, z), (x, z + spread)], high * 0.6)
