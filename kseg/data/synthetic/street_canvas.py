"""What streets are drawn with: a camera over flat ground, light, a canvas painted from far to near."""

import colorsys
import dataclasses
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

WITH_INSTANCES = (24, 25, 26, 27, 28, 31, 32, 33)  # Cityscapes ids, person to bicycle
NEAR = 1.5  # metres; nothing nearer is projected
FAR = 75.0  # metres; where the street ends
GAP = np.full(3, np.nan)  # the "colour" of a hole: part of the object, but what lies behind shows


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pinhole over flat ground: metres x to the right, y up, z ahead; `bend` curves it with z * z."""

    focal: float
    centre: float
    horizon: float
    eye: float
    roll: float
    bend: float

    def project(self, x: Any, y: Any, z: Any) -> tuple[Any, Any]:
        """World metres -> (column, row) in pixels."""
        z = np.maximum(z, NEAR)
        scale = self.focal / z
        column = self.centre + (x + self.bend * z * z) * scale
        return column, self.horizon + (self.eye - y) * scale + self.roll * (column - self.centre)

    def level(self, rows: Any, columns: Any) -> Any:
        """Pixels below the horizon, roll taken out."""
        return rows - self.roll * (columns - self.centre) - self.horizon


@dataclasses.dataclass(frozen=True)
class Light:
    """The sun's shadow in metres (across, along) for each metre of height, its strength 0..1, and the air."""

    across: float
    along: float
    strength: float
    haze: np.ndarray
    haze_metres: float


def any_colour(rng, saturation=(0.0, 0.8), value=(0.1, 0.95)):
    """A colour (3 floats, 0..1) of any hue."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)), np.float32)


def in_double(function, *values):
    """A function of NumPy of `values`, computed in double precision and rounded to single.

    In single precision NumPy's exp, sin, cos and power differ in the last bit from one processor to another, and by
    that bit one of some fifteen million values of the pixels: the same seed would draw other streets elsewhere.
    """
    return function(*(np.asarray(value, np.float64) for value in values)).astype(np.float32)


def smooth_noise(rng, height, width, cells):
    """Noise 0..1 of (height, width) with about `cells` bumps across, bicubic between them."""
    grid = rng.random((max(2, round(cells * height / width)) + 1, cells + 1), dtype=np.float32)
    return np.clip(np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)), 0, 1)


def blobs(rng, centres, radii, points=9, ragged=0.25):
    """Round, ragged polygons (n, points, 2) about centres (n, 2) of radii (n, 2), in pixels."""
    centres = np.atleast_2d(centres)
    radii = np.atleast_2d(radii)
    count = len(centres)
    angle = np.arange(points) * (2 * np.pi / points) + rng.uniform(0, 6, (count, 1))
    reach = 1 + ragged * rng.uniform(-1, 1, (count, points))
    ring = np.stack([reach * np.cos(angle), reach * np.sin(angle)], 2)
    return centres[:, None] + radii[:, None] * ring


def capsules(starts, ends, radii):
    """Bars with round ends (n, 10, 2) from points (n, 2) to points (n, 2); radii (n, 2) at both, in pixels."""
    heading = np.arctan2(ends[:, 1] - starts[:, 1], ends[:, 0] - starts[:, 0])[:, None]
    angle = heading + np.linspace(np.pi / 2, 3 * np.pi / 2, 5)
    arc = np.stack([np.cos(angle), np.sin(angle)], 2)
    radii = np.asarray(radii)[:, :, None, None]
    return np.concatenate([starts[:, None] + radii[:, 0] * arc, ends[:, None] - radii[:, 1] * arc], 1)


class Canvas:
    """Image (0..1), Cityscapes label ids and instance ids, filled from near to far: what is painted stays.

    As in Cityscapes, the label of a fence or a wheel covers its holes, through which the image shows what is behind.
    """

    def __init__(self, rng, height, width, camera, light):
        self.rng = rng
        self.camera = camera
        self.light = light
        self.height = height
        self.width = width
        self.image = np.zeros((height, width, 3), np.float32)
        self.labels = np.zeros((height, width), np.uint8)
        self.instances = np.zeros((height, width), np.uint16)
        self.free = np.ones((height, width), bool)  # of colour
        self.unlabelled = np.ones((height, width), bool)
        self.counts = dict.fromkeys(WITH_INSTANCES, 0)

    def clip(self, left, top, right, bottom):
        """The part of a rectangle in pixels that lies in the picture, as slices; None if none is free."""
        left = max(0, math.floor(left))
        top = max(0, math.floor(top))
        right = min(self.width, math.ceil(right))
        bottom = min(self.height, math.ceil(bottom))
        if right <= left or bottom <= top or not self.free[top:bottom, left:right].any():
            return None
        return slice(top, bottom), slice(left, right)

    def paint(self, box, use, colour, label, depth, *, outline=None):
        """Puts colours (n, 3), dimmed by haze over depth (metres), at the n free pixels `use` of box.

        The label goes to the pixels `outline`, `use` and the holes in it, that have none yet; None: to `use`.
        """
        clear = in_double(np.exp, -np.asarray(depth, np.float32) / self.light.haze_metres)[..., None]
        self.image[box][use] = colour * clear + self.light.haze * (1 - clear)
        self.free[box][use] = False
        self.mark(box, use if outline is None else outline, label)

    def mark(self, box, outline, label):
        """Labels the pixels `outline` of box that have no label yet, as one more object of its class."""
        new = outline & self.unlabelled[box]
        if not new.any():
            return
        identity = label
        if label in self.counts:
            identity = label * 1000 + self.counts[label]
            self.counts[label] += 1
        self.labels[box][new] = label
        self.instances[box][new] = identity
        self.unlabelled[box][new] = False

    def sprite(self, shapes, label, depth, *, grain=0.04, rounded=0.0):
        """Paints polygons [(points (n, 2), colour or GAP)] as one object; `rounded` shades it like a cylinder."""
        every = np.concatenate([points for points, _ in shapes])
        box = self.clip(*every.min(0).tolist(), *(every.max(0) + 1).tolist())
        if box is None:
            return
        top = box[0].start
        left = box[1].start
        size = (box[1].stop - left, box[0].stop - top)
        picture = Image.new("RGBA", size)
        pen = ImageDraw.Draw(picture)
        every = every - (left, top)
        tones = np.array([(*colour, 1) for _, colour in shapes])
        tones[np.isnan(tones[:, 0])] = (0, 0, 0, 0.5)
        tones = (np.clip(tones, 0, 1) * 255).astype(int).tolist()
        start = 0
        for (points, _), tone in zip(shapes, tones, strict=True):
            pen.polygon(every[start : start + len(points)].ravel().tolist(), fill=tuple(tone))
            start += len(points)
        picture = np.asarray(picture)
        use = (picture[..., 3] == 255) & self.free[box]
        columns = np.nonzero(use)[1]
        across = columns * np.float32(2 / size[0]) - 1
        sunny = -math.copysign(self.light.strength, self.light.across)
        shade = 1 + 0.2 * sunny * across - rounded * across**2
        shade *= 1 + grain * self.rng.standard_normal(columns.size, dtype=np.float32)
        outline = picture[..., 3] > 0
        self.paint(box, use, picture[use][:, :3] * (shade / 255)[:, None], label, depth, outline=outline)

    def wall(self, start, end, heights, label, texture):
        """Paints an upright plane over two ground points (x, z).

        texture(along, up, scale) gives the colours of n pixels (n, 3); nan where the plane has a hole.
        """
        camera = self.camera
        (first, _), (last, _) = (camera.project(x, 0, z) for x, z in (start, end))
        if abs(last - first) < 1:
            return
        box = self.clip(math.ceil(min(first, last)), 0, math.ceil(max(first, last)), self.height)
        if box is None:
            return
        columns = np.arange(box[1].start, box[1].stop, dtype=np.float32)
        part = (columns - first) / (last - first)
        near = camera.focal / start[1]
        far = camera.focal / end[1]
        scale = near + part * (far - near)
        along = part * far / scale * math.hypot(end[0] - start[0], end[1] - start[1])
        rows = np.arange(self.height, dtype=np.float32)[:, None]
        up = camera.eye - camera.level(rows, columns) / scale
        use = (up >= heights[0]) & (up < heights[1]) & self.free[box]
        column = np.nonzero(use)[1]
        if column.size:
            scale = scale[column]
            colour = texture(along[column], up[use], scale)
            depth = camera.focal / scale
            hole = np.isnan(colour[..., 0])
            outline = use
            if hole.any():
                outline = use.copy()
                use[use] = ~hole
                colour = colour[~hole]
                depth = depth[~hole]
            self.paint(box, use, colour, label, depth, outline=outline)
