"""Vehicles with bodywork in a drawn street: cars, trucks, buses, trams, each one sprite of flat panels."""

import numpy as np

from kseg.data.synthetic.street_canvas import any_colour
from kseg.data.synthetic.street_colours import town_colour

CAR = 26
TRUCK = 27
BUS = 28
TRAIN = 31  # Cityscapes ids
RING = np.linspace(0, 2 * np.pi, 13)[:-1]
BLACK = np.full(3, 0.06)
RED = np.array([0.75, 0.06, 0.06])
AMBER = np.array([0.95, 0.7, 0.2])
WHITE = np.array([0.95, 0.95, 0.85])


class Pose:
    """Where a vehicle stands: its middle at (x, z), heading away from the camera at turn 0, to the right at pi / 2.

    Its own metres are along (ahead of its middle), across (to its right) and up.
    """

    def __init__(self, canvas, x, z, turn):
        self.canvas = canvas
        self.x = x
        self.z = z
        self.cos = np.cos(turn)
        self.sin = np.sin(turn)
        bent = x + canvas.camera.bend * z * z
        self.eye = -(bent * self.sin + z * self.cos), -(bent * self.cos - z * self.sin), canvas.camera.eye

    def project(self, points):
        """Points (n, 3) in the vehicle's metres -> (n, 2) pixels."""
        along, across, up = np.asarray(points).T
        x = self.x + across * self.cos + along * self.sin
        z = self.z + along * self.cos - across * self.sin
        return np.stack(self.canvas.camera.project(x, up, z), 1)

    def hidden(self, length, half, high):
        """Whether nothing of a box of these metres can be seen."""
        box = [(a, b, c) for a in (-length / 2, length / 2) for b in (-half, half) for c in (0, high)]
        corners = self.project(box)
        return self.canvas.clip(*corners.min(0).tolist(), *(corners.max(0) + 1).tolist()) is None

    def paint(self, shapes, label, length):
        """Paints flat shapes [(points (n, 3), colour)], the last one nearest, as one object."""
        seen = self.project(np.concatenate([points for points, _ in shapes]))
        seen = np.split(seen, np.cumsum([len(points) for points, _ in shapes])[:-1])
        shapes = [(points, colour) for points, (_, colour) in zip(seen, shapes, strict=True)]
        self.canvas.sprite(shapes, label, max(self.z - length / 2 * abs(self.cos), 1))


def rect(left, right, low, high):
    """A rectangle's corners (4, 2)."""
    return np.array([(left, low), (right, low), (right, high), (left, high)])


def upright(points, along):
    """Points (across, up) set up across a vehicle, (n, 3)."""
    return np.insert(np.asarray(points, float), 0, along, axis=1)


def solid(pose, profile, half, colour, panels, side):
    """The shapes of a body: a profile drawn out to both sides, with panels on its strips and on its flanks.

    profile: (n, 2) along and up, from the rear's foot over the roof to the front's foot. panels: strip -> [(left,
    right, low, high, colour)], across in parts of half, up in parts of the strip. side: [(points (along, up), colour)].
    """
    along, across, up = pose.eye
    shapes = []
    strips = range(len(profile) - 1)
    for k in strips if along > 0 else reversed(strips):
        (a0, u0), (a1, u1) = profile[k], profile[k + 1]
        if (along - a0) * (u0 - u1) + (up - u0) * (a1 - a0) <= 0:
            continue
        tone = 0.85 + 0.25 * min(abs(a1 - a0) / (abs(u1 - u0) + 1e-3), 1)
        for left, right, low, high, paint in [(-1, 1, 0, 1, colour * tone), *panels.get(k, ())]:
            a = a0 + (a1 - a0) * low, a0 + (a1 - a0) * high
            u = u0 + (u1 - u0) * low, u0 + (u1 - u0) * high
            corners = (a[0], left, u[0]), (a[0], right, u[0]), (a[1], right, u[1]), (a[1], left, u[1])
            shapes.append((np.array(corners) * (1, half, 1), paint))
    if abs(across) > half:
        sign = np.sign(across)
        for points, paint in [(profile, colour * (0.8 + 0.1 * sign)), *side]:
            shapes.append((np.insert(points, 1, half * sign, axis=1), paint))
    return shapes


def wheels(axles, radius):
    """Wheels on a flank at these places along it: tyre, rim, hub."""
    shapes = []
    for axle in axles:
        for part, tone in ((1, 0.05), (0.58, 0.5), (0.2, 0.2)):
            ring = np.stack([axle + part * radius * np.cos(RING), radius + part * radius * np.sin(RING)], 1)
            shapes.append((ring, np.full(3, tone)))
    return shapes


def tyres(pose, length, half, wide, high):
    """What shows of the tyres below a body that is seen from its front or rear."""
    if abs(pose.eye[0]) - length / 2 < abs(pose.eye[1]):
        return []
    along = 0.47 * length * np.sign(pose.eye[0])
    middles = (wide / 2 - half, half - wide / 2)
    return [(upright(rect(at - wide / 2, at + wide / 2, 0, high), along), BLACK) for at in middles]


def lamps(colour, place, wide, low, high):
    """A pair of lamps as panels, `place` from the middle in parts of the half width."""
    return [(side * place - wide, side * place + wide, low, high, colour) for side in (-1, 1)]


def flip(panels):
    """Panels laid out from a strip's start upward, for a strip that starts at its top."""
    return [(left, right, 1 - high, 1 - low, colour) for left, right, low, high, colour in panels]


def car(canvas, x, z, turn, colour, rng):
    """A car: glass, lights, plate and wheels."""
    length = rng.uniform(3.7, 4.8)
    half = rng.uniform(0.85, 0.98)
    high = rng.uniform(1.4, 1.9)
    pose = Pose(canvas, x, z, turn)
    if pose.hidden(length, half, high):
        return
    belt = 0.55 * high
    bonnet = rng.uniform(0.15, 0.27)
    tail = rng.choice([0.02, 0.05, 0.18])
    profile = [(0, 0.25), (0, belt * 0.97), (tail, belt), (tail + 0.09, high), (0.72 - bonnet / 2, high)]
    profile += [(1 - bonnet, belt), (1, 0.8 * belt), (1, 0.25)]
    profile = np.array(profile) * (length, 1) - (length / 2, 0)
    glass = np.array([0.1, 0.13, 0.16]) + rng.uniform(0, 0.3)
    plate = (-0.26, 0.26, 0.38, 0.56, np.full(3, 0.85))
    bumper = (-1, 1, 0, 0.25, colour * 0.45)
    pane = (-0.86, 0.86, 0.1, 0.9, glass)
    panels = {
        0: [*lamps(RED, 0.74, 0.2, 0.55, 0.95), plate, bumper],
        2: [pane],
        4: [pane],
        6: [*lamps(WHITE, 0.72, 0.2, 0.1, 0.42), *flip([plate, bumper])],
    }
    window = profile[2:6].mean(0) + (profile[2:6] - profile[2:6].mean(0)) * (0.8, 0.75)
    door = rect(-0.03 * length, -0.02 * length, 0.3, high * 0.95)
    side = [(window, glass), (door, colour * 0.6), *wheels((-0.31 * length, 0.31 * length), 0.34)]
    shapes = [*tyres(pose, length, half, 0.3, 0.4), *solid(pose, profile, half, colour, panels, side)]
    pose.paint(shapes, CAR, length)


def truck(canvas, x, z, turn, length, rng):
    """A truck: a cab, and behind it a box, a tarpaulin or a tipper with its load, over a chassis on big wheels."""
    half = rng.uniform(1.15, 1.28)
    high = rng.uniform(2.9, 3.8)
    pose = Pose(canvas, x, z, turn)
    if pose.hidden(length, half, high):
        return
    front = length / 2
    colour = town_colour(rng, "truck")
    cab = _cab(pose, front, half, rng.uniform(2.3, min(high, 2.9)), colour, rng)
    body = _load(pose, (-front, front - rng.uniform(2.2, 2.5)), half, high, colour, rng)
    beam = upright(rect(-half * 0.9, half * 0.9, 0.45, 0.6), -front)
    tail = [(beam, np.full(3, 0.3))]
    for side in (-1, 1):
        light = rect(side * half * 0.75 - 0.2, side * half * 0.75 + 0.2, 0.72, 0.88)
        tail.append((upright(light, -front), RED))
    parts = [*cab, *body, *tail] if pose.eye[0] < 0 else [*tail, *body, *cab]
    under = []
    if abs(pose.eye[1]) > half:
        across = half * 0.98 * np.sign(pose.eye[1])
        flank = [(rect(-front + 0.1, front - 0.4, 0.6, 0.98), np.full(3, 0.14))]
        axles = [front - 1.2, -front + 1.3] + ([-front + 2.5] if length > 7.5 else [])
        flank += wheels(axles, rng.uniform(0.46, 0.52))
        under = [(np.insert(points, 1, across, axis=1), tone) for points, tone in flank]
    pose.paint([*tyres(pose, length, half, 0.5, 0.95), *parts, *under], TRUCK, length)


def _cab(pose, front, half, high, colour, rng):
    """A truck's cab: flat front, large windscreen, grille, lamps, mirrors, a door."""
    rear = front - 2.0
    glass = np.array([0.1, 0.13, 0.16]) + rng.uniform(0, 0.3)
    profile = [(rear, 0.6), (rear, high), (front - 0.25, high), (front - 0.06, 0.9 * high), (front, 0.5 * high)]
    profile = np.array([*profile, (front, 0.42)])
    dark = colour * 0.35
    panels = {
        3: [(-0.9, 0.9, 0.08, 0.97, glass)],
        4: [
            (-0.7, 0.7, 0.08, 0.5, dark),
            (-0.6, 0.6, 0.2, 0.27, colour),
            (-1, 1, 0.62, 1, dark),
            *lamps(WHITE, 0.78, 0.16, 0.66, 0.9),
            (-0.2, 0.2, 0.75, 0.92, np.full(3, 0.85)),
        ],
    }
    window = np.array([(front - 1.2, 0.55), (front - 0.22, 0.55), (front - 0.32, 0.88), (front - 1.2, 0.88)])
    side = [
        (window * (1, high), glass),
        (rect(front - 1.32, front - 1.28, 0.6, 0.9 * high), dark),
        (rect(front - 1.2, front - 1.0, 0.44 * high, 0.46 * high), dark),
    ]
    shapes = solid(pose, profile, half * 0.96, colour, panels, side)
    mirrors = [rect(s * (half + 0.05) - 0.1, s * (half + 0.05) + 0.1, 0.58 * high, 0.8 * high) for s in (-1, 1)]
    return [*((upright(mirror, front - 0.1), BLACK) for mirror in mirrors), *shapes]


def _load(pose, ends, half, high, colour, rng):
    """What a truck carries between its ends: box, tarpaulin or tipper."""
    rear, front = ends
    form = rng.integers(3)
    if rng.uniform() < 0.6:
        colour = town_colour(rng, "truck")
    dark = colour * 0.55
    if form == 2:
        high = rng.uniform(1.7, 2.1)
    profile = np.array([(rear, 0.95), (rear, high), (front, high), (front, 0.95)])
    panels = {0: [(-1, 1, 0, 0.06, dark), (-1, 1, 0.95, 1, dark)]}
    side = [(rect(rear, front, 0.95, 1.08), dark)]
    if form == 0:
        panels[0] += [(-0.02, 0.02, 0, 1, dark), (-0.3, -0.27, 0, 1, dark), (0.27, 0.3, 0, 1, dark)]
        stripe = np.sort(rng.uniform(1.2, high - 0.2, 2))
        start = np.sort(rng.uniform(rear + 0.3, front - 0.3, 2))
        side += [(rect(*start, *stripe), any_colour(rng)), (rect(rear, front, high - 0.12, high), dark)]
        return solid(pose, profile, half, colour, panels, side)
    for at in np.arange(rear + 0.1, front, rng.uniform(0.6, 1.1)):
        side.append((rect(at, at + 0.07, 0.95, high), dark))
    panels[0] += [(at - 0.02, at + 0.02, 0, 1, dark) for at in (-0.6, -0.2, 0.2, 0.6)]
    shapes = solid(pose, profile, half, colour, panels, side)
    if form == 2:
        middle = rng.uniform(0.3, 0.7) * (front - rear) + rear
        heap = np.array([(rear + 0.3, high), (middle, high + rng.uniform(0.3, 0.7)), (front - 0.3, high)])
        shapes = solid(pose, heap, half * 0.8, town_colour(rng, "load"), {}, []) + shapes
    return shapes


def _panes(start, end, low, high, step, glass, rng):
    """A row of windows on a flank between two places along it."""
    count = max(1, round((end - start) / step))
    shapes = []
    for left in start + np.arange(count) * ((end - start) / count):
        tone = rng.uniform(0.75, 1.35)
        shapes.append((rect(left + 0.06, left + (end - start) / count - 0.06, low, high), glass * tone))
    return shapes


def _doors(places, low, high, colour, glass):
    """Double doors on a flank: a frame and two leaves of glass."""
    shapes = []
    for at in places:
        shapes.append((rect(at - 0.65, at + 0.65, low, high), colour * 0.5))
        for left in (at - 0.57, at + 0.05):
            shapes.append((rect(left, left + 0.52, low + 0.15, high - 0.1), glass * 1.2))
    return shapes


def _display(rng):
    """Where a bus or a tram is going to, in lit letters, as panels."""
    tone = AMBER if rng.uniform() < 0.7 else WHITE
    shapes = [(-0.75, 0.75, 0.1, 0.9, BLACK)]
    for left in np.arange(-0.65, 0.6, 0.16):
        shapes.append((left, left + 0.1, 0.28, rng.uniform(0.6, 0.78), tone))
    return shapes


def bus(canvas, x, z, turn, length, rng):
    """A bus: rows of windows, doors on its right, a destination over the windscreen, mirrors like ears."""
    half = rng.uniform(1.2, 1.28)
    high = rng.uniform(2.9, 3.3)
    pose = Pose(canvas, x, z, turn)
    if pose.hidden(length, half, high):
        return
    front = length / 2
    colour = town_colour(rng, "bus")
    second = WHITE if rng.uniform() < 0.5 else colour * 0.7
    glass = np.array([0.1, 0.13, 0.16]) + rng.uniform(0, 0.3)
    profile = [(-front, 0.3), (-front, 1.4), (0.05 - front, 0.9 * high), (0.25 - front, high), (front - 0.3, high)]
    profile = np.array([*profile, (front - 0.12, 0.86 * high), (front, 0.4 * high), (front, 0.3)])
    panels = {
        0: [
            (-1, 1, 0, 0.2, second),
            (-0.7, 0.7, 0.45, 0.85, colour * 0.5),
            *lamps(RED, 0.86, 0.1, 0.4, 0.95),
            (-0.2, 0.2, 0.24, 0.4, np.full(3, 0.85)),
        ],
        1: [(-0.8, 0.8, 0.1, 0.75, glass)],
        4: flip(_display(rng)),
        5: [(-0.95, 0.95, 0.02, 0.98, glass), (-0.015, 0.015, 0.02, 0.98, BLACK), (-0.8, -0.1, 0.7, 0.95, glass * 1.4)],
        6: [
            (-1, 1, 0.75, 1, second),
            *lamps(WHITE, 0.75, 0.15, 0.35, 0.65),
            (-0.2, 0.2, 0.75, 0.92, np.full(3, 0.85)),
        ],
    }
    belt = 0.42 * high
    side = [(rect(-front, front, 0.3, rng.uniform(0.5, belt)), second * 0.9)]
    side.append((rect(0.12 - front, front - 0.1, belt, 0.8 * high), glass * 0.6))
    side += _panes(0.15 - front, front - 0.15, belt + 0.06, 0.8 * high - 0.06, rng.uniform(1.1, 1.7), glass, rng)
    if rng.uniform() < 0.3:
        side.append((rect(-0.3 * length, 0.05 * length, 0.6, 0.97 * belt), any_colour(rng)))
    if pose.eye[1] > 0:
        side += _doors((front - 1.0, rng.uniform(-0.1, 0.05) * length), 0.35, 0.8 * high, colour, glass)
    side += wheels((front - 2.4, -front + 2.6), 0.5)
    ears = [rect(s * (half + 0.12) - 0.11, s * (half + 0.12) + 0.11, 0.55 * high, 0.84 * high) for s in (-1, 1)]
    shapes = [(upright(ear, front + 0.1), BLACK) for ear in ears]
    shapes += [*tyres(pose, length, half, 0.35, 0.5), *solid(pose, profile, half, colour, panels, side)]
    pose.paint(shapes, BUS, length)


def tram(canvas, x, z, turn, length, rng):
    """A tram: sloping ends, segments joined by bellows, no wheels to be seen, a pantograph on the roof."""
    half = rng.uniform(1.15, 1.28)
    high = rng.uniform(3.4, 3.8)
    pose = Pose(canvas, x, z, turn)
    if pose.hidden(length, half, high + 1):
        return
    front = length / 2
    colour = town_colour(rng, "tram")
    second = np.full(3, 0.3) if rng.uniform() < 0.5 else colour * 0.6
    glass = np.array([0.1, 0.13, 0.16]) + rng.uniform(0, 0.3)
    nose = rng.uniform(0.3, 0.9)
    rear = [(-front, 0.15), (-front, 0.34 * high), (nose - front, 0.84 * high), (nose + 0.2 - front, high)]
    profile = np.array(rear + [(-along, up) for along, up in reversed(rear)])
    mask = [(-0.92, 0.92, 0.02, 0.98, glass), (-0.6, 0.3, 0.1, 0.3, glass * 1.4)]
    low = [(-1, 1, 0, 0.3, second), (-0.3, 0.3, 0.38, 0.5, np.full(3, 0.3))]
    panels = {
        0: [*low, *lamps(RED, 0.7, 0.15, 0.55, 0.75)],
        1: mask,
        2: _display(rng),
        4: flip(_display(rng)),
        5: flip(mask),
        6: flip([*low, *lamps(WHITE, 0.65, 0.14, 0.55, 0.75), (-0.14, 0.14, 0.8, 0.98, WHITE)]),
    }
    count = max(1, round(length / 7.5))
    cuts = np.linspace(nose - front + 0.3, front - nose - 0.3, count + 1)
    belt = 0.34 * high
    cabin = np.array([(0.1 * nose - front, belt), (nose - front, belt), (nose - front, 0.8 * high)])
    side = [(rect(-front, front, 0.15, rng.uniform(0.4, 0.9)), second * 0.9), (cabin, glass), (cabin * (-1, 1), glass)]
    side.append((rect(nose - front, front - nose, 0.95 * high, high), colour * 0.5))
    for left, right in zip(cuts[:-1], cuts[1:], strict=True):
        side += _panes(left, right, belt, 0.82 * high, rng.uniform(1.2, 1.7), glass, rng)
        side += _doors(((left + right) / 2,), 0.3, 0.82 * high, colour, glass)
    side += [(rect(cut - 0.28, cut + 0.28, 0.3, 0.97 * high), np.full(3, 0.15)) for cut in cuts[1:-1]]
    pose.paint([*_pantograph(high, rng), *solid(pose, profile, half, colour, panels, side)], TRAIN, length)


def _pantograph(high, rng):
    """The arm that takes the current from the wire: two bars in a knee, a bow across, a box beside them on the roof."""
    at = rng.uniform(-2, 2)
    knee = np.array([(at, high), (at + 0.9, high + 0.45), (at + 0.2, high + 0.95)])
    shapes = []
    for start, end in ((knee[0], knee[1]), (knee[1], knee[2])):
        bar = np.array([start, start + (0.1, 0), end + (0.1, 0), end])
        shapes += [(np.insert(bar, 1, across, axis=1), BLACK) for across in (-0.3, 0.3)]
        shapes.append((upright([(-0.34, start[1]), (-0.26, start[1]), (0.34, end[1]), (0.26, end[1])], end[0]), BLACK))
    shapes.append((upright(rect(-0.8, 0.8, high + 0.92, high + 1.0), knee[2][0]), BLACK))
    box = rect(at - 2.2, at - 0.6, high, high + 0.3)
    return shapes + [(np.insert(box, 1, across, axis=1), np.full(3, 0.4)) for across in (-0.5, 0.5)]
