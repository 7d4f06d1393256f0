"""What moves and stands in a drawn street: vehicles, riders, people, poles, signs, lights, trees, railings."""

import numpy as np

from kseg.data.synthetic import street_objects as objects
from kseg.data.synthetic import street_riders as riders
from kseg.data.synthetic import street_vehicles as vehicles
from kseg.data.synthetic.street_colours import town_colour
from kseg.data.synthetic.street_plan import FENCE
from kseg.data.synthetic.street_walls import fencing


def plan_traffic(street):
    """Everything between the house fronts; what is rare is placed first and in sight."""
    for plan in street.rng.permutation([_heavy, _ridden, _parked, _first_car]):
        plan(street)
    _cars(street)
    _lights(street)
    for side in (0, 1):
        _posts(street, side)
        _people(street, side)
        _trees(street, side)
        _railing(street, side)


def _box(x, z, turn, length, half):
    """The ground (x, x, z, z) under something that heads along the street or across it."""
    cos = abs(np.cos(turn))
    sin = abs(np.sin(turn))
    wide = half * cos + length / 2 * sin
    deep = half * sin + length / 2 * cos
    return x - wide, x + wide, z - deep, z + deep


def _free(street, box, margin=0.3):
    """Whether no vehicle stands on box."""
    return all(
        box[1] + margin < x0 or box[0] - margin > x1 or box[3] + margin < z0 or box[2] - margin > z1
        for (x0, x1, z0, z1), _ in street.vehicles
    )


def _view(street, box, high):
    """The rectangle (left, right, top, bottom), in parts of the picture's width, that a box of this height fills."""
    camera = street.camera
    width = street.canvas.width
    x0, x1, z0, z1 = box
    near = max(z0, 2)
    columns = [camera.centre / width + (x / z) * camera.focal / width for x in (x0, x1) for z in (near, z1)]
    rows = [(camera.horizon + (camera.eye - up) * camera.focal / near) / width for up in (high, 0)]
    tall = street.canvas.height / width
    return np.clip([min(columns), max(columns), *rows], (0, 0, 0, 0), (1, 1, tall, tall))


def _area(view):
    return max(view[1] - view[0], 0) * max(view[3] - view[2], 0)


def _shared(first, second):
    left, top = np.maximum(first, second)[[0, 2]]
    right, bottom = np.minimum(first, second)[[1, 3]]
    return _area((left, right, top, bottom))


def _in_sight(street, box, high, least):
    """Whether a box fills `least` of the picture, and nothing placed so far is mostly hidden, nor the box itself."""
    view = _view(street, box, high)
    if _area(view) < least * street.canvas.height / street.canvas.width:
        return False
    for other, tall in street.vehicles:
        theirs = _view(street, other, tall)
        behind = view if other[2] < box[2] else theirs
        if _shared(view, theirs) > 0.45 * _area(behind):
            return False
    return True


def _stand(street, box, high):
    """Takes the ground under a vehicle, and casts its shadow."""
    street.vehicles.append((box, high))
    x0, x1, z0, z1 = box
    tall = high if street.canvas.light.strength > 0.15 else 0.05
    street.cast([(x0, z0), (x1, z0), (x1, z1), (x0, z1)], 0.8 * tall)


def _heavy(street):
    """Trucks, buses and trams: ahead, oncoming, or crossing in the side street; trams on their rails."""
    rng = street.rng
    kinds = [(vehicles.truck, (6, 10)), (vehicles.bus, (8.5, 12.5)), (vehicles.tram, (14, 26))]
    for kind in rng.permutation(3):
        draw, lengths = kinds[kind]
        if rng.uniform() > 0.68:
            continue
        for _ in range(16):
            length = rng.uniform(*lengths)
            x, z, turn = _heavy_place(street, length, draw is vehicles.tram)
            box = _box(x, z, turn, length, 1.3)
            if _free(street, box) and _in_sight(street, box, 3.2, 0.03):
                street.add(box, draw, x, z, turn, length, rng)
                _stand(street, box, 3.2)
                break


def _heavy_place(street, length, on_rails):
    """Where a long vehicle could be: (x, z, turn)."""
    rng = street.rng
    ground = street.ground
    if ground.crossing is not None and rng.uniform() < 0.4:
        z = sum(ground.crossing) / 2
        if on_rails and ground.rails_across is not None:
            return rng.uniform(-8, 8), z, rng.choice([-1, 1]) * np.pi / 2
        if not on_rails:
            side = rng.choice([-1, 1])
            return rng.uniform(-6, 6), z + 1.5 * side, side * np.pi / 2
    lane = rng.integers(2)
    x = street.lanes[lane]
    turn = np.pi * (1 - lane)
    if not on_rails:
        x += rng.uniform(-0.3, 0.4) * (2 * lane - 1)
        turn += rng.uniform(-0.06, 0.06)
    return x, street.inside(x, 5, 14) + length / 2, turn


def _ridden(street):
    """Someone on a bicycle, someone on a motorcycle, on the road, along it or across."""
    rng = street.rng
    for motor in (False, True):
        for _ in range(rng.choice([0, 1, 2], p=[0.5, 0.45, 0.05])):
            for _ in range(8):
                x = rng.uniform(street.edges[0] + 0.4, street.edges[1] - 0.4)
                z = street.inside(x, 4.2, 7.5)
                turn = rng.choice([0, np.pi]) + rng.uniform(-0.5, 0.5)
                if rng.uniform() < 0.35:
                    turn = rng.choice([-1, 1]) * np.pi / 2 + rng.uniform(-0.5, 0.5)
                box = _box(x, z, turn, 1.9, 0.35)
                if _free(street, box) and _in_sight(street, box, 1.75, 0.008):
                    street.add(box, _ride, x, z, turn, rng, motor)
                    _stand(street, box, 1.5)
                    break


def _ride(canvas, x, z, turn, rng, motor):
    riders.ride(canvas, x, z, turn, rng, motor=motor)


def _parked(street):
    """Bicycles and motorcycles left on the sidewalk or at the kerb, one or two in a row."""
    rng = street.rng
    for draw in (riders.bicycle, riders.motorcycle):
        if rng.uniform() > 0.4:
            continue
        for _ in range(8):
            side = rng.integers(2)
            kerb = street.edges[side]
            x = kerb + (street.fronts[side] - kerb) * rng.uniform(-0.15, 0.8)
            z = street.inside(x, 4.4, 8)
            turn = rng.choice([0, 1, 2, 3]) * np.pi / 2 + rng.uniform(-0.4, 0.4)
            if not _in_sight(street, _box(x, z, turn, 1.8, 0.3), 1.1, 0.006):
                continue
            step = 0.75 if abs(np.sin(turn)) > 0.7 else 2.1
            for k in range(rng.integers(1, 3)):
                box = _box(x, z + k * step, turn, 1.8, 0.3)
                if _free(street, box, 0.0):
                    street.add(box, draw, x, z + k * step, turn + rng.uniform(-0.1, 0.1), rng)
                    _stand(street, box, 0.7)
            break


def _first_car(street):
    """A car that is well in sight, in nearly every street: at the kerb, ahead or oncoming."""
    rng = street.rng
    if rng.uniform() > 0.85:
        return
    for _ in range(12):
        lane = rng.integers(2)
        sign = 2 * lane - 1
        x = street.lanes[lane] + rng.uniform(-0.5, 0.5)
        turn = np.pi * (1 - lane) + rng.uniform(-0.2, 0.2)
        if abs(street.edges[lane]) > 3.0 and rng.uniform() < 0.4:
            x = street.edges[lane] - sign * 1.1
            turn = rng.choice([0, np.pi])
        if _car(street, x, street.inside(x, 7, 18), turn, 0.006):
            return


def _car(street, x, z, turn, least):
    """Places a car, if it is free to stand there; with `least` above 0 only if it fills that part of the picture."""
    rng = street.rng
    box = _box(x, z, np.round(turn / np.pi * 2) * np.pi / 2, 4.2, 1.0)
    if not _free(street, box, 0.15) or (least and not _in_sight(street, box, 1.5, least)):
        return False
    colour = town_colour(rng, "car" if rng.uniform() < 0.8 else "painted car")
    street.add(box, vehicles.car, x, z, turn, colour, rng)
    _stand(street, box, 1.5)
    return True


def _cars(street):
    """More cars: parked along the kerbs, driving, crossing in the side street."""
    rng = street.rng
    for side in (0, 1):
        x = street.edges[side] - (2 * side - 1) * 1.1
        z = street.inside(x, 6.5, 9)
        while z < 28 and abs(street.edges[side]) > 3.0:
            if rng.uniform() < 0.4 and not street.ground.in_crossing(z):
                _car(street, x, z, rng.choice([0, np.pi]) + rng.uniform(-0.05, 0.05), 0)
            z += rng.uniform(5.2, 8)
    for _ in range(rng.integers(0, 3)):
        x = rng.uniform(street.edges[0] * 0.45, street.edges[1] * 0.45)
        _car(street, x, street.inside(x, 8, 24), rng.choice([0, np.pi]) + rng.uniform(-0.3, 0.3), 0.001)
    if street.ground.crossing is not None and rng.uniform() < 0.6:
        z = rng.uniform(street.ground.crossing[0] + 1.2, street.ground.crossing[1] - 1.2)
        _car(street, rng.uniform(-5, 5), z, np.pi / 2 * rng.choice([-1, 1]), 0)


def _clear_of_crossing(street, z):
    """z, or a place before the side street if z lies in it."""
    if street.ground.in_crossing(z):
        return street.ground.crossing[0] - 0.4
    return z


def _lights(street):
    """Traffic lights on posts beside the road, now and then one more on an arm over it."""
    rng = street.rng
    if rng.uniform() > 0.7:
        return
    colour = town_colour(rng, "metal")
    for side in rng.permutation(2)[: rng.integers(1, 3)]:
        kerb = street.edges[side]
        sign = 2 * side - 1
        x = kerb + sign * rng.uniform(0.2, 0.9)
        z = _clear_of_crossing(street, street.inside(x, 5.5, 9.5))
        thick = rng.uniform(0.2, 0.3)
        size = rng.uniform(1.05, 1.45)
        low = rng.uniform(1.9, 2.7)
        box = (x - 0.15, x + 0.15, z - 0.1, z + 0.1)
        street.add(box, objects.pole, x, z, rng, low + size * rng.uniform(0.6, 1.1), thick, colour)
        street.cast([(x - thick / 2, z), (x + thick / 2, z)], 3.5)
        at = x - sign * rng.choice([0, 0.3])
        street.add((at - 0.2, at + 0.2, z - 0.2, z - 0.1), objects.traffic_light, at, low, z, rng, size)
        if rng.uniform() < 0.4:
            far = z + rng.uniform(5, 9)
            street.add((x - 0.1, x + 0.1, far - 0.1, far + 0.1), objects.pole, x, far, rng, 5.8, thick, colour)
            at = x - sign * rng.uniform(1.2, 2)
            street.add((at - 0.2, at + 0.2, far - 0.2, far - 0.1), objects.traffic_light, at, 4.6, far, rng, size)


def _posts(street, side):
    """Poles along a kerb, most of them with a sign."""
    rng = street.rng
    kerb = street.edges[side]
    front = street.fronts[side]
    metal = town_colour(rng, "metal")
    for _ in range(rng.integers(1, 3)):
        x = kerb + (front - kerb) * rng.uniform(0.05, 0.3)
        z = _clear_of_crossing(street, street.inside(x, 5.5, 11))
        high = rng.choice([2.8, 3.2, 5.5, 7.0])
        thick = rng.uniform(0.26, 0.36)
        street.add((x - 0.15, x + 0.15, z - 0.1, z + 0.1), objects.pole, x, z, rng, high, thick, metal)
        street.cast([(x - thick / 2, z), (x + thick / 2, z)], high)
        if rng.uniform() < 0.85:
            size = rng.uniform(0.75, 1.15)
            up = min(high, rng.uniform(2.3, 3.0)) - size / 2 + 0.1
            street.add((x - size / 2, x + size / 2, z - 0.2, z - 0.1), objects.sign, x, up, z, rng, size)


def _people(street, side):
    """People on a sidewalk; now and then someone on the road."""
    rng = street.rng
    kerb = street.edges[side]
    for _ in range(rng.integers(1, 4)):
        x = kerb + (street.fronts[side] - kerb) * rng.uniform(0.2, 0.9)
        if rng.uniform() >= 0.8:
            x = rng.uniform(*street.edges)
        z = street.inside(x, 4.5, 8)
        box = (x - 0.3, x + 0.3, z - 0.2, z + 0.2)
        if _free(street, box, 0.1):
            street.add(box, objects.person, x, z, rng)
            street.cast([(x - 0.25, z), (x + 0.25, z)], 1.7)


def _trees(street, side):
    """Often, a row of trees along a kerb."""
    rng = street.rng
    kerb = street.edges[side]
    if rng.uniform() < 0.4:
        for z in np.arange(rng.uniform(10, 18), 50, rng.uniform(8, 14)):
            if street.ground.in_crossing(z):
                continue
            x = kerb + (street.fronts[side] - kerb) * 0.3
            high = rng.uniform(5, 8)
            spread = rng.uniform(1.5, 2.4)
            street.add((x - 0.4, x + 0.4, z - 0.4, z + 0.4), objects.tree, x, z, rng, high, spread, street.leaf())
            street.cast([(x - spread, z), (x, z - spread), (x + spread, z), (x, z + spread)], high * 0.6)


def _railing(street, side):
    """In some streets, a railing along a kerb, in panels so that people stand before some and behind others."""
    rng = street.rng
    if rng.uniform() > 0.2:
        return
    x = street.edges[side] + (2 * side - 1) * 0.3
    high = rng.uniform(0.85, 1.2)
    texture = fencing(rng, high)
    start = street.inside(x, 5.5, 9)
    for near in np.arange(start, start + rng.uniform(4, 14), 2.0):
        if not street.ground.in_crossing(np.array([near, near + 2])).any():
            box = (x - 0.05, x + 0.05, near, near + 2)
            street.add(box, _panel, (x, near), (x, near + 2), (0, high), FENCE, texture)


def _panel(canvas, *face):
    canvas.wall(*face)
