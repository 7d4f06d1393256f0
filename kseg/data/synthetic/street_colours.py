"""The colours of the drawn town: each kind of thing has a family, as a town's buses, trams and lamp posts have.

Light, tint, haze, noise and what else is in the picture change every colour, and some families overlap.
"""

import colorsys

import numpy as np

# hue, saturation, value: ranges in 0..1, a hue past 1 goes on from 0
FAMILIES = {
    "bus": ((0.98, 1.02), (0.75, 0.95), (0.6, 0.9)),  # red
    "tram": ((0.12, 0.15), (0.75, 0.95), (0.8, 0.98)),  # yellow
    "truck": ((0.56, 0.64), (0.6, 0.9), (0.4, 0.8)),  # blue
    "car": ((0.0, 1.0), (0.0, 0.12), (0.1, 0.95)),  # black, silver, white
    "painted car": ((0.0, 1.0), (0.2, 0.5), (0.2, 0.6)),
    "motorcycle": ((0.9, 0.95), (0.7, 0.95), (0.6, 0.9)),  # crimson
    "bicycle": ((0.18, 0.23), (0.7, 0.95), (0.75, 0.95)),  # lime
    "vest": ((0.05, 0.08), (0.85, 1.0), (0.85, 1.0)),  # the orange that riders wear
    "coat": ((0.7, 0.86), (0.3, 0.8), (0.35, 0.9)),  # violet, plum, lilac
    "trousers": ((0.55, 0.8), (0.1, 0.5), (0.1, 0.45)),
    "hair": ((0.0, 0.12), (0.2, 0.6), (0.05, 0.5)),
    "metal": ((0.55, 0.65), (0.05, 0.25), (0.12, 0.24)),  # lamp posts
    "plaster": ((0.06, 0.14), (0.08, 0.4), (0.62, 0.95)),
    "slate": ((0.5, 0.62), (0.05, 0.2), (0.55, 0.85)),
    "pane": ((0.5, 0.65), (0.1, 0.4), (0.12, 0.4)),
    "brick": ((0.0, 0.05), (0.45, 0.7), (0.38, 0.6)),
    "fence": ((0.45, 0.51), (0.55, 0.85), (0.4, 0.7)),  # verdigris
    "bonnet": ((0.0, 1.0), (0.0, 0.3), (0.05, 0.4)),
    "load": ((0.06, 0.12), (0.2, 0.5), (0.2, 0.5)),  # sand, gravel
}


def town_colour(rng, family):
    """A colour (3 floats, 0..1) of one of FAMILIES."""
    hue, saturation, value = (rng.uniform(*ends) for ends in FAMILIES[family])
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)
