"""What stands in a drawn street: cars, people, poles, signs, trees, hedges, each one sprite of polygons."""

import numpy as np

from kseg.data.synthetic.street_canvas import any_colour, blobs

POLE = 17
SIGN = 20
VEGETATION = 21
PERSON = 24
CAR = 26  # Cityscapes ids
RING = np.linspace(0, 2 * np.pi, 13)[:-1]


def car(canvas, x, z, turn, colour, rng):
    """A car whose middle stands at (x, z): a profile drawn out sideways, glass, lights, plate and wheels."""
    length = rng.uniform(3.7, 4.8)
    width = rng.uniform(1.7, 1.95)
    high = rng.uniform(1.4, 1.9)
    column, row = canvas.camera.project(x, 0, z - length / 2)
    wide = 0.75 * length * canvas.camera.focal / (z - length / 2)
    if canvas.clip(column - 2 * wide, row - wide, column + 2 * wide, row + 2) is None:
        return
    belt = 0.55 * high
    bonnet = rng.uniform(0.15, 0.27)
    tail = rng.choice([0.02, 0.05, 0.18])
    profile = [(0, 0.25), (0, belt * 0.97), (tail, belt), (tail + 0.09, high), (0.72 - bonnet / 2, high)]
    profile += [(1 - bonnet, belt), (1, 0.8 * belt), (1, 0.25)]
    profile = np.array(profile) * (length, 1) - (length / 2, 0)
    glass = np.array([0.1, 0.13, 0.16]) + rng.uniform(0, 0.3)
    cos = np.cos(turn)
    sin = np.sin(turn)
    # a face is (nearness, [(points (n, 3) along, across, up in metres, colour)])
    faces = []
    tones = (0.85, 0.75, None, 1.15, None, 1.05, 0.9)
    for start, end, tone in zip(profile[:-1], profile[1:], tones, strict=True):
        shapes = [(_strip(start, end, width), colour * (tone or 1))]
        if tone is None:
            corners = shapes[0][0]
            shapes.append((corners.mean(0) + (corners - corners.mean(0)) * (0.86, 0.86, 0.8), glass))
        faces.append((z + (start[0] + end[0]) / 2 * cos, shapes))
    for k, lamp in ((0, (0.75, 0.06, 0.06)), (-1, (0.95, 0.95, 0.85))):
        at = profile[k][0]
        depth, shapes = faces[k]
        under = [(_panel(at, side * width * 0.38, width * 0.08, 0, 0.4), np.full(3, 0.06)) for side in (-1, 1)]
        over = [(_panel(at, side * width * 0.36, width * 0.1, 0.7 * belt, 0.92 * belt), lamp) for side in (-1, 1)]
        over.append((_panel(at, 0, width * 0.13, 0.5, 0.62), np.full(3, 0.85)))
        over.append((_panel(at, 0, width * 0.5, 0.25, 0.42), colour * 0.45))
        faces[k] = (depth, under + shapes + over)
    for side in (-1, 1):
        # the side that looks at the camera lies nearer than every slice, the other one farther
        across = side * width / 2
        seen = (x + across * cos) * side * cos - (z - across * sin) * side * sin < 0
        faces.append((-1e3 if seen else 1e3, _flank(profile, across, length, colour * (0.8 + 0.1 * side), glass)))
    faces.sort(key=lambda face: -face[0])
    shapes = [shape for _, face in faces for shape in face]
    along, across, up = np.concatenate([points for points, _ in shapes]).T
    column, row = canvas.camera.project(x + across * cos + along * sin, up, z + along * cos - across * sin)
    seen = np.split(np.stack([column, row], 1), np.cumsum([len(points) for points, _ in shapes])[:-1])
    shapes = [(points, tone) for points, (_, tone) in zip(seen, shapes, strict=True)]
    canvas.sprite(shapes, CAR, z - length / 2 * abs(cos))


def _strip(start, end, width):
    """A car's panel from side to side between two profile points (along, up)."""
    half = width / 2
    a0, u0 = start
    a1, u1 = end
    return np.array([(a0, -half, u0), (a0, half, u0), (a1, half, u1), (a1, -half, u1)])


def _panel(along, middle, half, low, high):
    """An upright rectangle across a car's end."""
    left = middle - half
    right = middle + half
    return np.array([(along, left, low), (along, right, low), (along, right, high), (along, left, high)])


def _flank(profile, across, length, colour, glass):
    """A car's side: profile, side windows, wheels."""

    def upright(points):
        return np.insert(points, 1, across, axis=1)

    window = profile[2:6].mean(0) + (profile[2:6] - profile[2:6].mean(0)) * (0.8, 0.75)
    shapes = [(upright(profile), colour), (upright(window), glass)]
    for axle in (-0.31 * length, 0.31 * length):
        for radius, tone in ((0.34, 0.05), (0.19, 0.5)):
            rim = np.stack([axle + radius * np.cos(RING), 0.34 + radius * np.sin(RING)], 1)
            shapes.append((upright(rim), np.full(3, tone)))
    return shapes


def person(canvas, x, z, rng):
    """A person on foot: legs in stride, coat, arms, head and hair; sometimes a bag."""
    column, row = canvas.camera.project(x, 0, z)
    unit = canvas.camera.focal / z * rng.uniform(0.92, 1.08)
    if canvas.clip(column - unit, row - 2 * unit, column + unit, row + 2) is None:
        return
    lean = rng.choice([-1, 1])
    stride = rng.uniform(0.05, 0.28)
    broad = rng.uniform(0.23, 0.3)
    top = any_colour(rng, (0, 0.9), (0.15, 0.95))
    trousers = any_colour(rng, (0, 0.6), (0.05, 0.8))
    skin = np.array([0.95, 0.75, 0.6]) * rng.uniform(0.35, 1)
    hair = any_colour(rng, (0, 0.6), (0.05, 0.6))
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
    half = max(thick * unit / 2, 1.5 * canvas.width / 256)
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
    yellow = np.array([0.95, 0.8, 0.1])
    black = np.full(3, 0.08)
    rim, fill, mark = (
        (red, white, black),
        (white, blue, white),
        (white, red, white),
        (black, yellow, black),
    )[rng.integers(4)]
    here = np.array([column, row])
    shapes = [(shape + here, rim), (shape * 0.72 + here, fill)]
    for _ in range(rng.integers(1, 3)):
        wide, tall = rng.uniform(0.1, 0.4, 2) * radius
        middle = here + rng.uniform(-0.15, 0.15, 2) * radius
        bar = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (wide, tall) + middle
        shapes.append((bar, mark))
    canvas.sprite(shapes, SIGN, z - 0.1)


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
