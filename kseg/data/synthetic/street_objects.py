"""What stands in a drawn street: people, poles, signs, lights, trees, hedges, each one sprite of polygons."""

import numpy as np

from kseg.data.synthetic.street_canvas import any_colour, blobs
from kseg.data.synthetic.street_colours import town_colour

POLE = 17
TRAFFIC_LIGHT = 19
SIGN = 20
VEGETATION = 21
PERSON = 24  # Cityscapes ids
LAMPS = ((0.98, 0.1, 0.08), (1.0, 0.72, 0.1), (0.15, 0.95, 0.5))  # red, amber, green


def person(canvas, x, z, rng):
    """A person on foot: legs in stride, coat, arms, head and hair; sometimes a bag."""
    column, row = canvas.camera.project(x, 0, z)
    unit = canvas.camera.focal / z * rng.uniform(0.92, 1.08)
    if canvas.clip(column - unit, row - 2 * unit, column + unit, row + 2) is None:
        return
    lean = rng.choice([-1, 1])
    stride = rng.uniform(0.05, 0.28)
    broad = rng.uniform(0.26, 0.33)
    top = town_colour(rng, "coat")
    trousers = town_colour(rng, "trousers")
    skin = np.array([0.95, 0.75, 0.6]) * rng.uniform(0.35, 1)
    hair = town_colour(rng, "hair")
    hem = rng.uniform(0.55, 0.85)

    def at(points):
        return np.array(points) * (unit * lean, -unit) + (column, row)

    shapes = []
    for foot, tone in ((-stride, 0.75), (stride, 1.0)):
        leg = [(-0.12, 0.9), (0.12, 0.9), (foot + 0.09, 0.06), (foot - 0.08, 0.06)]
        shoe = [(foot - 0.09, 0.1), (foot + 0.09, 0.1), (foot + 0.2, 0), (foot - 0.09, 0)]
        shapes += [(at(leg), trousers * tone), (at(shoe), np.full(3, 0.08))]
    swing = rng.uniform(0.05, 0.25)
    arm = [(-0.02 - broad, 1.42), (0.1 - broad, 1.45), (-broad + swing, 0.8), (-broad + swing - 0.12, 0.78)]
    coat = [(-broad, 1.42), (-0.1, 1.5), (0.1, 1.5), (broad, 1.42), (broad * 0.85, hem), (-broad * 0.85, hem)]
    shapes += [(at(coat), top), (at(arm), top * 0.75), (at([(-x, y) for x, y in arm]), top * 0.85)]
    skull = np.array([(0.13, 0.15), (0.1, 0.12)]) * unit
    shapes += zip(blobs(rng, at([(0.02, 1.65), (0.05, 1.61)]), skull, 10, 0), (hair, skin), strict=True)
    if rng.uniform() < 0.4:
        bag = [(-broad - 0.15, 1.35), (-broad + 0.05, 1.38), (-broad + 0.05, 0.95), (-broad - 0.15, 0.95)]
        shapes.append((at(bag), any_colour(rng)))
    canvas.sprite(shapes, PERSON, z)


def pole(canvas, x, z, rng, high, thick, colour):
    """An upright pole with a foot; a tall one carries a lamp on an arm."""
    column, row = canvas.camera.project(x, 0, z)
    unit = canvas.camera.focal / z
    half = max(thick * unit / 2, 2.2 * canvas.width / 256)
    top = row - high * unit
    bar = np.array([(column - half, row), (column + half, row), (column + half, top), (column - half, top)])
    foot = np.array([(-1.5, 0), (1.5, 0), (1.3, -0.35 * unit), (-1.3, -0.35 * unit)]) * (half, 1) + (
        column,
        row,
    )
    canvas.sprite([(bar, colour), (foot, colour * 0.8)], POLE, z, rounded=0.45)
    if high > 4:
        reach = -np.sign(x) * rng.uniform(0.8, 1.8) * unit
        arm = [(0, 0), (reach, -0.3 * unit), (reach, 0.1 * unit), (0, 0.35 * unit)]
        canvas.sprite([(np.array(arm) + (column, top), colour * 0.9)], POLE, z)


def sign(canvas, x, up, z, rng, size):
    """A traffic sign that faces the camera: round, triangular, square, diamond or octagonal, symbol on it."""
    column, row = canvas.camera.project(x, up, z)
    radius = size / 2 * canvas.camera.focal / z
    corners, start = ((16, 0), (3, -np.pi / 2), (3, np.pi / 2), (4, np.pi / 4), (4, 0), (8, np.pi / 8))[rng.integers(6)]
    angle = start + np.arange(corners) * 2 * np.pi / corners
    shape = np.stack([np.cos(angle), np.sin(angle)], 1) * radius * (1.15 if corners < 5 else 1)
    white = np.full(3, 0.93)
    red = np.array([0.8, 0.08, 0.1])
    blue = np.array([0.08, 0.25, 0.7])
    black = np.full(3, 0.08)
    rim, fill, mark = (
        (red, white, black),
        (white, blue, white),
        (white, red, white),
    )[rng.integers(3)]
    here = np.array([column, row])
    shapes = [(shape + here, rim), (shape * 0.72 + here, fill)]
    for _ in range(rng.integers(1, 3)):
        wide, tall = rng.uniform(0.1, 0.4, 2) * radius
        middle = here + rng.uniform(-0.15, 0.15, 2) * radius
        bar = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (wide, tall) + middle
        shapes.append((bar, mark))
    canvas.sprite(shapes, SIGN, z - 0.1)


def traffic_light(canvas, x, up, z, rng, high):
    """A traffic light whose foot is `up`: two or three lamps under hoods, one or two of them lit; or from aside."""
    column, row = canvas.camera.project(x, up, z)
    unit = canvas.camera.focal / z * high
    lamps = (0, 1, 2) if rng.uniform() < 0.8 else (0, 2)
    lit = ((0,), (2,), (1,), (0, 1))[rng.choice(4, p=[0.4, 0.4, 0.1, 0.1])]
    aside = rng.choice([0, -1, 1], p=[0.76, 0.12, 0.12])  # the way the lamps face if not to the camera
    housing = np.full(3, rng.uniform(0.04, 0.12))

    def at(points):
        return np.array(points) * (unit, -unit) + (column, row)

    def box(wide, low, top):
        return at([(-wide, low), (wide, low), (wide, top), (-wide, top)])

    tall = len(lamps) / 3
    shapes = []
    if aside == 0:
        shapes += [(box(0.29, -0.08, tall + 0.08), np.full(3, 0.9)), (box(0.25, -0.05, tall + 0.05), np.full(3, 0.05))]
    shapes.append((box(0.19 if aside == 0 else 0.12, 0, tall), housing))
    for k, lamp in enumerate(lamps):
        middle = tall - (k + 0.5) / 3
        if aside != 0:
            hood = np.array([(0.1, 0.13), (0.27, 0.1), (0.27, 0.06), (0.1, -0.06)]) * (aside, 1)
            shapes.append((at(hood + (0, middle)), housing * 0.7))
            continue
        hood = np.array([(-0.16, 0.02), (-0.12, 0.15), (0.12, 0.15), (0.16, 0.02)])
        shapes.append((at(hood + (0, middle)), housing * 0.4))
        tone = np.array(LAMPS[lamp])
        if lamp not in lit:
            tone = tone * 0.2 + 0.04
        shapes.append((blobs(rng, at([(0, middle)]), np.full((1, 2), 0.125 * unit), 12, 0)[0], tone))
    canvas.sprite(shapes, TRAFFIC_LIGHT, z - 0.1)


def tree(canvas, x, z, rng, high, spread, colour):
    """A tree: a trunk under a crown of ragged leaf blobs, dark below and bright to the sun."""
    column, row = canvas.camera.project(x, 0, z)
    unit = canvas.camera.focal / z
    wide = 1.3 * spread * unit
    if canvas.clip(column - wide, row - 1.2 * high * unit, column + wide, row) is None:
        return
    base = 0.3 * high
    half = max(0.03 * high * unit, 1)
    stem = [(-half, 0), (half, 0), (half * 0.6, -0.6 * high * unit), (-half * 0.6, -0.6 * high * unit)]
    shapes = [(np.array(stem) + (column, row), np.array([0.3, 0.24, 0.18]) * rng.uniform(0.5, 1.6))]
    middle = (base + high) / 2
    radius = np.array([spread, (high - base) / 2])
    centre = np.array([column, row - middle * unit])
    shapes.append((blobs(rng, centre, radius * 0.8 * unit, 14)[0], colour * 0.7))
    count = int(np.clip(spread * unit, 8, 32))
    angle = rng.uniform(0, 2 * np.pi, count)
    away = np.sqrt(rng.uniform(0.1, 1, count)) * 0.82
    offset = np.stack([np.cos(angle), np.sin(angle)], 1) * away[:, None]
    offset = offset[np.argsort(-offset[:, 1])]
    tone = 0.8 + offset @ (-0.15 * np.sign(canvas.light.across), -0.35) + rng.uniform(-0.18, 0.18, count)
    leaves = blobs(rng, centre + offset * radius * unit, radius * unit * rng.uniform(0.16, 0.34, (count, 1)), 7, 0.4)
    shapes += zip(leaves, colour * tone[:, None], strict=True)
    canvas.sprite(shapes, VEGETATION, z, grain=0.2)


def hedge(canvas, start, end, rng, high, colour):
    """A hedge between two ground points (x, z), the first one the farther: bushes in a row."""
    far = canvas.camera.focal / start[1]
    near = canvas.camera.focal / end[1]
    count = int(np.clip(abs(near - far) * 2, 6, 30))
    scale = np.linspace(far, near, count)  # even steps in the picture
    part = np.clip((canvas.camera.focal / scale - start[1]) / (end[1] - start[1]), 0, 1)
    ground = np.array(start) + part[:, None] * (np.array(end) - start)
    column, row = canvas.camera.project(ground[:, 0], 0, ground[:, 1])
    tall = high * rng.uniform(0.85, 1.15, count) * scale
    bushes = blobs(rng, np.stack([column, row - tall / 2], 1), np.stack([tall * 0.6, tall * 0.52], 1), 10)
    lights = np.stack([column, row - tall * 0.7], 1) + rng.uniform(-0.2, 0.2, (count, 2)) * tall[:, None]
    leaves = blobs(rng, lights, tall[:, None] * rng.uniform(0.12, 0.25, (count, 2)), 7, 0.4)
    shapes = []
    for bush, leaf, tone in zip(bushes, leaves, rng.uniform(0.7, 1.0, count), strict=True):
        shapes += [(bush, colour * tone), (leaf, colour * tone * 1.35)]
    canvas.sprite(shapes, VEGETATION, start[1], grain=0.2)
