"""Procedural street scenes with Cityscapes label ids: perspective, light, shadow, texture, overlap."""

import numpy as np

from kseg.data.synthetic import street_surfaces as surfaces
from kseg.data.synthetic.street_canvas import Camera, Canvas, Light
from kseg.data.synthetic.street_plan import Street
from kseg.data.synthetic.street_traffic import plan_traffic
from kseg.io.errors import InputError


def draw_street(seed, height, width):
    """Draws one street scene; the same seed, height and width always give the same picture.

    Args:
        seed: int or sequence of ints, as `numpy.random.default_rng` takes.
        height, width: size in pixels, at least 48 x 64.

    Returns:
        image uint8 (height, width, 3) RGB; label_ids uint8 (height, width), Cityscapes ids, not train ids,
        void among them; instance_ids uint16 (height, width): id * 1000 + k for people, riders and vehicles, else
        the id. All 19 training classes occur, most of them not in every street.

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
        horizon=height * rng.uniform(0.38, 0.55),
        eye=rng.uniform(1.15, 1.9),
        roll=rng.uniform(-0.02, 0.02),
        bend=rng.uniform(-0.004, 0.004),
    )
    mood = surfaces.mood_of(rng)
    strength = mood["sun"] * rng.uniform(0.6, 1.0)
    light = Light(
        across=rng.choice([-1, 1]) * rng.uniform(0.3, 1.6),
        along=rng.uniform(-0.8, 0.8),
        strength=strength,
        haze=(mood["low"] * rng.uniform(0.8, 1.0)).astype(np.float32),
        haze_metres=rng.choice([150.0, 300.0, 600.0]),
    )
    canvas = Canvas(rng, height, width, camera, light)
    street = Street(canvas)
    plan_traffic(street)
    surfaces.paint_bonnet(canvas)
    street.paint()
    surfaces.paint_ground(canvas, street.ground, street.shadow, street.grass())
    surfaces.paint_sky(canvas, mood)
    surfaces.mark_rim(canvas)
    return surfaces.expose(canvas, mood), canvas.labels, canvas.instances
