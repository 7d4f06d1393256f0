"""Upright surfaces of a drawn street: house fronts, walls and fences, as textures for `Canvas.wall`."""

import numpy as np

from kseg.data.synthetic.street_canvas import in_double
from kseg.data.synthetic.street_colours import town_colour


def facade(rng):
    """One building's look: texture(along, up, scale) -> colour, storeys of windows and courses of brick."""
    base = town_colour(rng, "plaster" if rng.uniform() < 0.7 else "slate")
    pane = town_colour(rng, "pane")
    frame = base * rng.uniform(0.6, 1.3)
    storey = rng.uniform(2.6, 3.8)
    bay = rng.uniform(1.7, 3.4)
    tall = rng.uniform(0.22, 0.4)
    wide = rng.uniform(0.18, 0.36)
    course = rng.uniform(0.2, 0.5)
    lit = rng.uniform(0.0, 0.3)
    bright = rng.uniform(0.75, 1.05)
    table = rng.uniform(0.6, 1.3, 1024).astype(np.float32)
    glow = rng.random(1024) < lit

    def texture(along, up, scale):
        key = (np.floor(along / bay).astype(int) * 37 + np.floor(up / storey).astype(int) * 101) & 1023
        across = (along / bay) % 1 - 0.5
        height = (up / storey) % 1 - 0.55
        brick = (np.floor(up / course).astype(int) * 53 + np.floor(along / course / 2).astype(int) * 97) & 1023
        fade = np.clip(scale * course / 2, 0, 1)
        colour = base * (bright * (1 + 0.3 * fade * (table[brick] - 0.95)))[..., None]
        edge = (np.abs(across) < wide + 0.05) & (np.abs(height) < tall + 0.05) & (up > 0.4)
        inner = (np.abs(across) < wide) & (np.abs(height) < tall) & (up > 0.4)
        colour = np.where(edge[..., None], frame, colour)
        panes = np.where(glow[key][..., None], (0.95, 0.8, 0.5), pane * table[key][..., None])
        colour = np.where(inner[..., None], panes, colour)
        ledge = (up / storey) % 1 > 0.96
        return np.where(ledge[..., None], colour * 0.7, colour).astype(np.float32)

    return texture


def masonry(rng, high):
    """A free-standing wall: bricks, blocks or slabs of concrete under a coping, sometimes with piers."""
    base = town_colour(rng, "brick")
    coping = base * rng.uniform(0.6, 1.4)
    course = rng.choice([0.12, 0.22, 0.35])
    stone = course * rng.uniform(2, 3)
    joint = rng.uniform(0.6, 1.25)
    bay = rng.uniform(2.5, 5)
    pier = rng.choice([0.0, 0.4])
    top = rng.uniform(0.08, 0.18)
    table = rng.uniform(0.72, 1.25, 1024).astype(np.float32)

    def texture(along, up, scale):
        row = np.floor(up / course).astype(int)
        place = along / stone + 0.5 * (row % 2)
        fade = np.clip(scale * course / 3, 0.1, 1)
        tone = 1 + fade * (table[(row * 53 + np.floor(place).astype(int) * 97) & 1023] - 1)
        wide = np.maximum(0.012, 0.4 / scale)
        between = ((up % course) < wide) | ((place % 1) * stone < wide)
        tone = np.where(between, 1 + fade * (joint - 1), tone)
        tone = np.where((along % bay) < pier, tone * 1.15, tone)
        tone = tone * (1 - 0.3 * in_double(np.exp, -up / 0.3))
        tone = np.where((up > high - top - 0.07) & (up <= high - top), tone * 0.6, tone)
        colour = base * tone[..., None]
        return np.where((up > high - top)[..., None], coping, colour).astype(np.float32)

    return texture


def fencing(rng, high):
    """A fence with holes: bars, pickets, wire mesh, boards or a railing of tubes, between posts."""
    kind = rng.choice(5, p=[0.2, 0.25, 0.05, 0.4, 0.1])
    paint = town_colour(rng, "fence")
    bay = rng.uniform(1.5, 2.6)
    period, wide = ((0.24, 0.14), (0.22, 0.16), (0.26, 0.08), (0.16, 0.16), (high / 4.3, 0.15))[kind]
    period = period * rng.uniform(0.9, 1.3)
    table = rng.uniform(0.75, 1.2, 256).astype(np.float32)

    def bar(place, every, thick, scale):
        return (place % every) < np.maximum(thick, 0.9 / scale)

    def texture(along, up, scale):
        post = bar(along, bay, 0.1, scale)
        rail = (np.abs(up - 0.2 * high) < 0.04) | (np.abs(up - 0.9 * high) < np.maximum(0.04, 0.5 / scale))
        if kind == 2:
            rods = bar(along + up, period, wide, scale) | bar(along - up, period, wide, scale)
        elif kind == 4:
            rods = bar(high - up, period, wide, scale)
        else:
            rods = bar(along, period, wide, scale)
        board = np.floor(along / period).astype(int) & 255
        tone = np.where(rods, table[board], 0.7)
        if kind == 3:
            tone = np.where((along % period) < np.maximum(0.015, 0.4 / scale), 0.5, tone)
        tone = np.where(post, 0.9, tone)
        colour = paint * tone[..., None]
        return np.where((rods | rail | post)[..., None], colour, np.nan).astype(np.float32)

    return texture
