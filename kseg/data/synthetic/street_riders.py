"""Bicycles and motorcycles in a drawn street, parked or ridden, and their riders: rods, wheels and panels."""

import numpy as np

from kseg.data.synthetic.street_canvas import GAP, any_colour, blobs, capsules
from kseg.data.synthetic.street_colours import town_colour
from kseg.data.synthetic.street_vehicles import AMBER, BLACK, RED, WHITE, Pose, solid

RIDER = 25
MOTORCYCLE = 32
BICYCLE = 33  # Cityscapes ids
RING = np.linspace(0, 2 * np.pi, 17)[:-1]


def ride(canvas, x, z, turn, rng, *, motor):
    """Someone on a bicycle or a motorcycle: the rider hides the vehicle, which is an object of its own."""
    pose = Pose(canvas, x, z, turn)
    if pose.hidden(2.2, 0.5, 1.9):
        return
    lean = rng.uniform(-0.1, 0.1)
    if motor:
        _rider(pose, rng, (-0.2, 0.84), (lean + 0.05, 1.42), (0.36, 0.36, 1.02), ((-0.05, 0.34), (-0.05, 0.34)))
        motorcycle(canvas, x, z, turn, rng)
    else:
        crank = rng.uniform(0, 2 * np.pi)
        pedal = np.array([np.cos(crank), np.sin(crank)]) * 0.17
        feet = pedal + (0.0, 0.3), (0.0, 0.3) - pedal
        _rider(pose, rng, (-0.2, 0.98), (lean + 0.12, 1.5), (0.4, 0.27, 1.04), feet)
        bicycle(canvas, x, z, turn, rng)


def _rods(pose, rods):
    """Rods [(start, end, radius at start, radius at end, colour)] in metres -> shapes in pixels, far ones first."""
    starts, ends, first, last, colours = zip(*rods, strict=True)
    points = np.concatenate([starts, ends]).astype(float)
    along, across, _ = np.array(pose.eye)
    gaze = np.array([along, across, 0]) / np.hypot(along, across)
    nearness = (points @ gaze).reshape(2, -1).mean(0)
    seen = pose.project(points)
    unit = pose.canvas.camera.focal / pose.z
    radii = np.maximum(np.stack([first, last], 1) * unit, 0.5 * pose.canvas.width / 256)
    bars = capsules(*np.split(seen, 2), radii)
    return [(bars[k], colours[k]) for k in np.argsort(nearness, kind="stable")]


def _wheel(pose, hub, radius, half, dark, spokes, disc=None):
    """A wheel: the tread, the flank that faces the camera, rim and spokes; `spokes` 0: a wheel without holes.

    disc: colour of a disc between the spokes, as hire bicycles carry.
    """
    along, up = hub
    side = half if pose.eye[1] > 0 else -half
    ring = np.stack([along + radius * np.cos(RING), np.zeros(len(RING)), up + radius * np.sin(RING)], 1)
    near = pose.project(ring + (0, side, 0))
    far = pose.project(ring - (0, side, 0))
    behind = np.roll(np.arange(len(RING)), 1)
    tread = np.stack([near, far, far[behind], near[behind]], 1)
    shapes = [(quad, dark * 0.8) for quad in tread]
    middle = near.mean(0)
    shapes.append((near, dark))
    if not spokes:
        return [*shapes, (middle + (near - middle) * 0.66, dark + 0.3), (middle + (near - middle) * 0.4, dark)]
    tyre = 1 - max(0.1, 1.3 * pose.canvas.width / 256 / (radius * pose.canvas.camera.focal / pose.z))
    shapes.append((middle + (near - middle) * tyre, GAP))
    tips = middle + (near[:: len(RING) // spokes] - middle) * tyre
    thin = np.full((len(tips), 2), 0.25 * pose.canvas.width / 256)
    bars = capsules(np.broadcast_to(middle, tips.shape), tips, thin)
    shapes += [(bar, np.full(3, 0.55)) for bar in bars]
    if disc is not None:
        shapes.append((middle + (near - middle) * 0.72, disc))
    return shapes


def _by_distance(pose, parts):
    """Parts [(along, shapes)] as one list, the far end of the vehicle first."""
    sign = 1 if pose.eye[0] > 0 else -1
    return [shape for _, shapes in sorted(parts, key=lambda part: sign * part[0]) for shape in shapes]


def bicycle(canvas, x, z, turn, rng):
    """A bicycle: a frame of tubes, handlebar, saddle, wheels that one can see through; sometimes a basket."""
    pose = Pose(canvas, x, z, turn)
    if pose.hidden(2.0, 0.4, 1.2):
        return
    paint = town_colour(rng, "bicycle")
    dark = np.full(3, rng.uniform(0.04, 0.15))
    metal = np.full(3, rng.uniform(0.35, 0.8))
    rear = (-0.52, 0, 0.34)
    front = (0.58, 0, 0.34)
    crank = (-0.05, 0, 0.3)
    seat = (-0.2, 0, 0.86)
    head = (0.38, 0, 0.85)
    top = seat if rng.uniform() < 0.6 else (-0.12, 0, 0.5)
    bar = (0.36, 0, 1.03)
    tubes = [(rear, crank), (rear, seat), (seat, crank), (top, head), (crank, head)]
    rods = [(start, end, 0.04, 0.04, paint) for start, end in tubes]
    rods += [(head, front, 0.022, 0.02, metal), (head, bar, 0.02, 0.02, metal)]
    rods += [(bar, (0.3, side * 0.28, 1.05), 0.02, 0.025, dark) for side in (-1, 1)]
    rods += [((-0.32, 0, 0.95), (-0.08, 0, 0.96), 0.08, 0.04, dark), (seat, (-0.2, 0, 0.95), 0.02, 0.02, metal)]
    rods += [((-0.05, -0.12, 0.3), (-0.05, 0.12, 0.3), 0.05, 0.05, metal)]
    rods += [((-0.75, 0, 0.62), (-0.78, 0, 0.62), 0.035, 0.035, RED)]
    rods += [((0.5, 0, 0.84), (0.54, 0, 0.84), 0.05, 0.05, WHITE)]
    if rng.uniform() < 0.5:
        rods += [((-0.75, 0, 0.74), (-0.3, 0, 0.74), 0.02, 0.02, metal)]
        rods += [((-0.65, side * 0.14, 0.6), (-0.4, side * 0.14, 0.6), 0.13, 0.13, paint * 0.8) for side in (-1, 1)]
    basket = []
    if rng.uniform() < 0.4:
        profile = np.array([(0.49, 0.82), (0.45, 1.05), (0.78, 1.05), (0.73, 0.82)])
        basket = solid(pose, profile, 0.18, np.array([0.5, 0.38, 0.25]) * rng.uniform(0.4, 1.4), {}, [])
        basket = [(pose.project(points), tone) for points, tone in basket]
    wheels = [(hub[0], _wheel(pose, (hub[0], hub[2]), 0.34, 0.03, dark, 8, paint * 0.85)) for hub in (rear, front)]
    shapes = _by_distance(pose, [*wheels, (0, _rods(pose, rods)), (0.6, basket)])
    canvas.sprite(shapes, BICYCLE, z)


def motorcycle(canvas, x, z, turn, rng):
    """A motorcycle: engine, tank, seat, fork, fat wheels, or a scooter with a leg shield."""
    pose = Pose(canvas, x, z, turn)
    if pose.hidden(2.3, 0.5, 1.4):
        return
    paint = town_colour(rng, "motorcycle")
    dark = np.full(3, rng.uniform(0.04, 0.12))
    metal = np.full(3, rng.uniform(0.4, 0.8))
    scooter = rng.uniform() < 0.4
    radius = 0.24 if scooter else 0.32
    rods = [((0.42, s * 0.05, 0.95), (0.7, s * 0.07, radius), 0.035, 0.035, metal) for s in (-1, 1)]
    rods += [((0.4, 0, 1.0), (0.33, s * 0.36, 1.04), 0.03, 0.035, dark) for s in (-1, 1)]
    rods += [((0.36, s * 0.3, 1.06), (0.4, s * 0.36, 1.24), 0.015, 0.06, dark) for s in (-1, 1)]
    rods += [((-0.62, 0, 0.8), (-0.02, 0, 0.78), 0.1, 0.12, dark * 1.4)]
    rods += [((-0.78, 0, 0.78), (-0.82, 0, 0.78), 0.07, 0.07, RED)]
    rods += [((-0.78, -0.16, 0.72), (-0.78, 0.16, 0.72), 0.02, 0.02, dark)]
    rods += [((-0.8, s * 0.16, 0.72), (-0.84, s * 0.18, 0.72), 0.04, 0.04, AMBER) for s in (-1, 1)]
    rods += [((0.52, 0, 0.92), (0.6, 0, 0.92), 0.13, 0.12, paint), ((0.6, 0, 0.92), (0.68, 0, 0.92), 0.1, 0.1, WHITE)]
    rods += [((0.5, 0, 2.05 * radius), (0.9, 0, 1.95 * radius), 0.07, 0.06, paint)]
    if scooter:
        rods += [((-0.65, 0, 0.5), (-0.2, 0, 0.55), 0.2, 0.16, paint), ((-0.2, 0, 0.3), (0.3, 0, 0.3), 0.1, 0.1, paint)]
        rods += [((0.38, s * 0.12, 0.35), (0.42, s * 0.12, 0.85), 0.14, 0.14, paint * 0.85) for s in (-1, 1)]
    else:
        rods += [((-0.15, 0, 0.42), (0.25, 0, 0.46), 0.2, 0.19, metal * 0.5)]
        rods += [((-0.1, 0, 0.6), (0.35, 0, 0.62), 0.12, 0.12, dark)]
        rods += [((0.0, 0, 0.84), (0.3, 0, 0.9), 0.13, 0.16, paint)]
        rods += [((-0.85, 0.2, 0.42), (-0.35, 0.18, 0.34), 0.075, 0.06, metal)]
        rods += [((-0.7, 0, 0.36), (0.0, 0, 0.4), 0.05, 0.05, dark)]
        rods += [((-0.8, 0, 0.72), (-0.45, 0, 0.7), 0.06, 0.1, paint)]
        if rng.uniform() < 0.8:
            rods += [((0.3, s * 0.14, 0.55), (0.5, s * 0.1, 0.85), 0.15, 0.17, paint * 0.9) for s in (-1, 1)]
        rods += [((-0.8, s * 0.24, 0.62), (-0.42, s * 0.24, 0.62), 0.16, 0.16, paint * 0.85) for s in (-1, 1)]
    hubs = (-0.62, 0.62) if scooter else (-0.7, 0.72)
    parts = [(hub, _wheel(pose, (hub, radius), radius, 0.07, dark, 0)) for hub in hubs]
    plate = pose.project([(-0.88, a, u) for a, u in ((-0.12, 0.48), (0.12, 0.48), (0.12, 0.66), (-0.12, 0.66))])
    parts.append((-0.9, [(plate, np.full(3, 0.85))]))
    canvas.sprite(_by_distance(pose, [*parts, (0, _rods(pose, rods))]), MOTORCYCLE, z)


def _rider(pose, rng, hip, shoulder, hand, feet):
    """Someone who sits: legs bent, arms to the handlebar; places are (along, up), the hand's (along, across, up)."""
    top = town_colour(rng, "vest")
    trousers = town_colour(rng, "trousers")
    skin = np.array([0.95, 0.75, 0.6]) * rng.uniform(0.35, 1)
    hair = town_colour(rng, "vest")  # a helmet
    broad = rng.uniform(0.17, 0.22)
    hip = np.array([hip[0], 0, hip[1]])
    shoulder = np.array([shoulder[0], 0, shoulder[1]])
    rods = []
    for side, foot in zip((-1, 1), feet, strict=True):
        across = np.array([0, side, 0])
        ankle = np.array([foot[0], 0, foot[1]]) + across * 0.14
        knee = (hip + ankle) / 2 + (0.24, 0, 0.14) + across * 0.08
        elbow = (shoulder + np.array(hand) * (1, 0, 1)) / 2 + (-0.06, 0, -0.1) + across * (hand[1] * 0.6 + 0.16)
        tone = 0.88 + 0.12 * side
        rods.append((hip + across * 0.09, knee, 0.11, 0.08, trousers * tone))
        rods.append((knee, ankle, 0.075, 0.05, trousers * tone))
        rods.append((ankle - (0.05, 0, 0.04), ankle + (0.15, 0, -0.06), 0.05, 0.04, BLACK))
        rods.append((shoulder + across * broad, elbow, 0.075, 0.06, top * (0.75 + 0.1 * side)))
        rods.append((elbow, np.array(hand) * (1, side, 1), 0.055, 0.045, top * (0.8 + 0.1 * side)))
        rods.append((hip + across * 0.1, shoulder + across * (broad - 0.09), 0.14, 0.12, top))
    rods.append((hip, shoulder - (0, 0, 0.02), 0.13, 0.13, top * 0.97))
    if rng.uniform() < 0.35:
        back = np.array([-0.2, 0, -0.02])
        rods.append((shoulder + back, (hip + shoulder) / 2 + back, 0.15, 0.16, any_colour(rng)))
    shapes = _rods(pose, rods)
    unit = pose.canvas.camera.focal / pose.z
    skull = pose.project([shoulder + (0.1, 0, 0.23), shoulder + (0.07, 0, 0.29)])
    radii = np.array([(0.105, 0.13), (0.125, 0.115)]) * unit
    shapes += zip(blobs(rng, skull, radii, 12, 0), (skin, hair), strict=True)
    pose.canvas.sprite(shapes, RIDER, pose.z)
