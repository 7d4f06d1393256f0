"""Sky and ground of a drawn street, and what the camera adds at the end."""

import dataclasses
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from kseg.data.synthetic.street_canvas import FAR, in_double, smooth_noise
from kseg.data.synthetic.street_colours import town_colour

EGO_VEHICLE = 1
OUT_OF_ROI = 3
ROAD = 7
SIDEWALK = 8
TERRAIN = 22
SKY = 23  # Cityscapes ids


def mood_of(rng):
    """Weather and hour: sky colours above and at the horizon, sun 0..1, clouds 0..1, tint and exposure."""
    moods = (
        ((0.20, 0.42, 0.80), (0.68, 0.82, 0.95), 1.0, 0.5, (1.0, 1.0, 0.98), (0.85, 1.1)),  # clear
        ((0.62, 0.65, 0.70), (0.82, 0.83, 0.84), 0.1, 0.7, (0.98, 1.0, 1.02), (0.85, 1.1)),  # overcast
        ((0.34, 0.34, 0.52), (0.98, 0.66, 0.42), 0.7, 0.6, (1.12, 0.96, 0.82), (0.85, 1.05)),  # sunset
        ((0.25, 0.22, 0.36), (0.58, 0.46, 0.52), 0.0, 0.5, (0.92, 0.94, 1.12), (0.85, 1.05)),  # dusk
        ((0.72, 0.68, 0.58), (0.88, 0.84, 0.74), 0.4, 0.2, (1.05, 1.0, 0.92), (0.85, 1.05)),  # hazy
        ((0.36, 0.40, 0.45), (0.52, 0.55, 0.57), 0.0, 1.0, (0.96, 1.0, 1.03), (0.85, 1.1)),  # rain clouds
    )
    high, low, sun, clouds, tint, exposure = moods[rng.integers(len(moods))]
    jitter = rng.uniform(0.85, 1.15, 3)
    return {
        "high": (np.array(high) * jitter).astype(np.float32),
        "low": (np.array(low) * jitter).astype(np.float32),
        "sun": sun,
        "clouds": clouds * rng.uniform(0.2, 1.0),
        "tint": np.array(tint) * rng.uniform(0.93, 1.07, 3),
        "exposure": 1.1 * rng.uniform(*exposure),
    }


def paint_sky(canvas, mood):
    """Sky over the whole picture: a gradient, soft clouds, a glow round the sun."""
    rng = canvas.rng
    height, width = canvas.labels.shape
    rows = np.arange(height, dtype=np.float32)[:, None] / max(canvas.camera.horizon, 1)
    part = in_double(np.power, np.clip(rows, 0, 1)[..., None], rng.uniform(0.6, 1.6))
    sky = mood["high"] * (1 - part) + mood["low"] * part
    cloud = smooth_noise(rng, height, width, rng.integers(3, 6)) * 0.7
    cloud = np.clip((cloud + 0.3 * smooth_noise(rng, height, width, 12) - 0.45) * 3, 0, 1) * mood["clouds"]
    cloud_colour = mood["low"] * 0.5 + rng.uniform(0.15, 0.5)
    sky = sky * (1 - cloud[..., None]) + cloud_colour * cloud[..., None]
    columns = np.arange(width, dtype=np.float32) / width - np.float32(rng.uniform())
    height_of_glow = np.float32(rng.uniform(0, 0.8))
    glow = in_double(np.exp, -8 * columns**2) * in_double(np.exp, -2.4 * (rows - height_of_glow) ** 2)
    sky += 0.25 * canvas.light.strength * glow[..., None]
    free = canvas.free
    canvas.image[free] = sky[free]
    canvas.mark(np.s_[:, :], free, SKY)


@dataclasses.dataclass
class Ground:
    """What the ground is made of, in metres: sidewalk, except where a line below says otherwise.

    edges: the road's left and right kerb (x). crossing: a side street from z to z, or None. strips: grass from x to x
    all along. lawns: grass over (x, x, z, z). rails: x of the middle of each track. rails_across: z of a track in the
    side street, or None.
    """

    edges: tuple[float, float]
    crossing: tuple[float, float] | None
    strips: list[tuple[float, float]]
    lawns: list[tuple[float, float, float, float]]
    rails: list[tuple[float, float]]
    rails_across: float | None

    def in_crossing(self, z: Any) -> np.ndarray:
        """Whether z lies in the side street."""
        if self.crossing is None:
            return np.zeros(np.shape(z), bool)
        return (z > self.crossing[0]) & (z < self.crossing[1])

    def off_kerb(self, x: Any, z: Any) -> np.ndarray:
        """Metres to the nearest kerb."""
        off = np.minimum(np.abs(x - self.edges[0]), np.abs(x - self.edges[1]))
        if self.crossing is not None:
            off = np.minimum(off, np.minimum(np.abs(z - self.crossing[0]), np.abs(z - self.crossing[1])))
        return off


def paint_ground(canvas, ground, shadow, leaf):
    """Road, sidewalks and grass pixel by pixel in world metres: asphalt, markings, rails, kerb, slabs, shadows."""
    camera = canvas.camera
    rng = canvas.rng
    rows, columns = np.mgrid[0 : canvas.height, 0 : canvas.width].astype(np.float32)
    level = camera.level(rows, columns)
    use = (level > camera.eye * camera.focal / (FAR + 25)) & canvas.free
    scale = level[use] / camera.eye
    z = camera.focal / scale
    x = (columns[use] - camera.centre) / scale - camera.bend * z * z
    road = ((x > ground.edges[0]) & (x < ground.edges[1])) | ground.in_crossing(z)
    grass = np.zeros_like(road)
    ragged = x + 0.07 * in_double(np.sin, 5 * z) + 0.05 * in_double(np.sin, 17 * z)
    for left, right in ground.strips:
        grass |= (ragged > left) & (ragged < right)
    for left, right, start, end in ground.lawns:
        grass |= (x > left) & (x < right) & (z > start) & (z < end)
    grass &= ~road
    grey = rng.uniform(0.24, 0.4)
    patches = smooth_noise(rng, canvas.height, canvas.width, 5)[use] * 0.3 + 0.85
    dark = np.asarray(shadow.filter(ImageFilter.GaussianBlur(canvas.width / 400)))[use] / np.float32(255)
    sunny = canvas.light.strength
    bright = patches * (1 + 0.15 * sunny - (0.25 + 0.4 * sunny) * dark)
    for label, here in ((ROAD, road), (SIDEWALK, ~road & ~grass), (TERRAIN, grass)):
        place = x[here], z[here], scale[here]
        if label == ROAD:
            colour = _asphalt(rng, *place, ground, grey)
        elif label == SIDEWALK:
            colour = _slabs(rng, *place, ground, grey)
        else:
            colour = _grass(rng, *place, leaf)
        pixels = np.zeros_like(use)
        pixels[use] = here
        canvas.paint(np.s_[:, :], pixels, colour * bright[here][:, None], label, z[here])


def _grass(rng, x, z, scale, leaf):
    """Grass colours (n, 3): blades, tufts and mowing lines, worn to soil in places."""
    soil = np.array([0.42, 0.33, 0.22]) * rng.uniform(0.6, 1.4)
    table = rng.uniform(0.6, 1.35, 4096).astype(np.float32)
    tone = np.ones_like(x)
    for size, much in ((0.12, 0.8), (0.45, 0.6), (1.7, 0.5)):
        key = (np.floor(x / size).astype(int) * 61 + np.floor(z / size).astype(int) * 1031) & 4095
        tone += much * np.clip(scale * size / 4, 0.1, 1) * (table[key] - 1)
    tone *= 1 + rng.uniform(0.05, 0.15) * rng.standard_normal(x.shape, dtype=np.float32)
    tone *= 1 + rng.uniform(0, 0.12) * np.sign(in_double(np.sin, x * rng.uniform(2, 6)))
    worn = in_double(np.sin, x * 1.3 + rng.uniform(0, 6)) * in_double(np.sin, z * 0.7 + rng.uniform(0, 6))
    worn += 0.3 * (tone - 1)
    worn = np.clip((worn - rng.uniform(0.5, 1.1)) * 4, 0, 0.85)[..., None]
    return (leaf * rng.uniform(0.9, 1.15) * (1 - worn) + soil * worn) * tone[..., None]


def _asphalt(rng, x, z, scale, ground, grey):
    """Road colours (n, 3): grey of any tone, grain, tyre tracks, lane lines, rails, sometimes a zebra crossing."""
    colour = grey * rng.uniform(0.93, 1.07, 3)
    grain = 1 + rng.uniform(0.04, 0.12) * rng.standard_normal(x.shape, dtype=np.float32)
    left, right = ground.edges
    tracks = 1 - 0.08 * in_double(np.cos, 2 * np.pi * (x - left) / 1.7)
    paint = np.zeros(x.shape, bool)
    lanes = max(2, round((right - left) / 3.2))
    period = rng.uniform(4, 9)
    share = rng.uniform(0.35, 0.6)
    for lane in range(1, lanes):
        line = left + (right - left) * lane / lanes
        paint |= (np.abs(x - line) < 0.08) & ((z / period) % 1 < share)
    if rng.uniform() < 0.5:
        paint |= (np.abs(x - left - 0.3) < 0.06) | (np.abs(x - right + 0.3) < 0.06)
    if ground.crossing is not None:
        paint &= ~ground.in_crossing(z)
        before = ground.crossing[0] - z
        paint |= (before > 0.6) & (before < 1.0) & (x > (left + right) / 2) & (x < right)
    if rng.uniform() < 0.3:
        start = rng.uniform(7, 16)
        paint |= (z > start) & (z < start + 3) & ((x / 1.0) % 1 < 0.5) & (x > left) & (x < right)
    worn = rng.uniform(0.3, 0.6) + 0.35
    tone = np.array([1.0, 1.0, 0.97]) if rng.uniform() < 0.8 else np.array([1.0, 0.82, 0.3])
    surface = colour * (grain * tracks)[..., None]
    surface = np.where(paint[..., None], surface * (1 - worn) + worn * tone * 0.9, surface)
    bed = rng.uniform(0.75, 1.3) if rng.uniform() < 0.5 else 1.0
    across = [] if ground.rails_across is None else [np.abs(z - ground.rails_across)]
    for off in [*(np.abs(x - middle) for middle in ground.rails), *across]:
        groove = np.abs(off - 0.65) < np.maximum(0.04, 0.35 / scale)
        steel = np.abs(off - 0.74) < np.maximum(0.05, 0.45 / scale)
        surface = surface * np.where(groove, 0.4, np.where(off < 1.1, bed, 1))[..., None]
        surface = np.where(steel[..., None], (0.74, 0.72, 0.7), surface)
    return surface


def _slabs(rng, x, z, scale, ground, grey):
    """Sidewalk colours (n, 3): slabs of uneven tone with joints, a kerb stone along the road."""
    colour = (grey + rng.uniform(0.22, 0.34)) * np.array([1.08, 0.98, 0.86]) * rng.uniform(0.96, 1.04, 3)
    size = rng.uniform(0.5, 1.1)
    table = rng.uniform(0.78, 1.22, 1024).astype(np.float32)
    key = (np.floor(x / size).astype(int) * 61 + np.floor(z / size).astype(int) * 131) & 1023
    fade = np.clip(scale * size / 4, 0.15, 1)
    tone = 1 + fade * (table[key] - 1)
    joint = ((x / size) % 1 < 0.09) | ((z / size) % 1 < 0.09)
    tone = np.where(joint, tone * (1 - 0.35 * fade), tone)
    off = ground.off_kerb(x, z)
    kerb = rng.uniform(1.3, 1.65)
    tone = np.where(off < 0.22, kerb, tone)
    tone = np.where(off < 0.07, 0.5, tone)
    return colour * tone[..., None]


def paint_bonnet(canvas):
    """The bonnet of the camera's own car, in most scenes."""
    rng = canvas.rng
    height, width = canvas.labels.shape
    if rng.uniform() < 0.6:
        middle = canvas.camera.centre + rng.uniform(-0.1, 0.1) * width
        high = height * rng.uniform(0.05, 0.12)
        columns = np.linspace(-0.2 * width, 1.2 * width, 20)
        arch = height - high * np.clip(1.1 - 2.2 * ((columns - middle) / width) ** 2, 0, None)
        outline = np.stack([np.r_[columns, columns[::-1]], np.r_[arch, np.full(20, height + 2)]], 1)
        colour = town_colour(rng, "bonnet")
        inner = outline + (0, 0.3 * high)
        canvas.sprite([(outline, colour), (inner, colour * 1.3)], EGO_VEHICLE, 0.0)


def mark_rim(canvas):
    """The rim of the picture, void as in Cityscapes."""
    rim = max(1, canvas.width // 256)
    for edge in (np.s_[:, :rim], np.s_[:, -rim:], np.s_[-rim:, :]):
        canvas.labels[edge] = canvas.instances[edge] = OUT_OF_ROI


def expose(canvas, mood):
    """The camera: tint, exposure, vignette, lens blur, noise, eight bits."""
    rng = canvas.rng
    height, width = canvas.labels.shape
    across = np.linspace(-1, 1, width, dtype=np.float32)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    gain = 1 - rng.uniform(0, 0.15) * (across**2 + down**2) / 2 + rng.uniform(-0.06, 0.06) * across
    tint = (mood["tint"] * (mood["exposure"] * 255)).astype(np.float32)
    picture = np.clip(canvas.image * (gain.astype(np.float32)[..., None] * tint), 0, 255)
    curve = 255 * np.linspace(0, 1, 256) ** rng.uniform(0.9, 1.1)
    blurred = Image.fromarray(picture.astype(np.uint8)).point([round(v) for v in curve.tolist()] * 3)
    blurred = blurred.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.7) * (width / 256) ** 0.5))
    noise = np.float32(rng.uniform(0.5, 2.5)) * rng.standard_normal((height, width, 3), dtype=np.float32)
    return np.clip(np.asarray(blurred, np.float32) + noise, 0, 255).astype(np.uint8)
