"""Street scenes as a driver sees them, drawn: what `tests/data/streets.zip` holds, and `notebooks/03_segmentation.ipynb` learns from.

    python tests/streets.py tests/data/streets.zip

Laid out as CamVid is for SegNet's tutorial, `streets/{train,val,test}/{images,masks}`, but drawn rather than photographed, and small: 96 x 128,
images as JPEG, masks as palette PNG. Everything that one may walk or drive on is road. Colours overlap between classes on purpose.
"""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("sky", "building", "pole", "road", "tree", "car", "pedestrian")
COLORS = ("#8fbfe0", "#a04030", "#f0d020", "#805090", "#208040", "#2040c0", "#f07818")
SKY, BUILDING, POLE, ROAD, TREE, CAR, PEDESTRIAN = range(7)
VOID, VOID_COLOR = 255, "#000000"
SPLITS = {"train": 28, "val": 6, "test": 10}
HEIGHT, WIDTH = 96, 128
FINE = 2  # drawn so many times as large, so that border pixels mix colours as a camera's do
EYE = 1.5  # metres of the camera above the road: at a row so far below the horizon, that many pixels are 1.5 m


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image `(96, 128, 3)` uint8 and mask `(96, 128)` uint8 of ids 0..6 and 255 for void."""
    rng = np.random.default_rng(seed)
    canvas = _Canvas(rng)
    canvas.sky()
    canvas.road()
    canvas.far_trees()
    for side in (-1, 1):
        canvas.street_side(side)
    # From far to near, so that what is near hides what is far.
    things = [(canvas.tree, rng.uniform(5, 22)) for _ in range(rng.integers(1, 5))]
    things += [(canvas.pole, rng.uniform(6, 26)) for _ in range(rng.integers(1, 5))]
    things += [(canvas.car, rng.uniform(6, 34)) for _ in range(rng.integers(1, 5))]
    things += [(canvas.pedestrian, rng.uniform(9, 34)) for _ in range(rng.integers(1, 5))]
    for draw, below in sorted(things, key=lambda thing: thing[1]):
        draw(below * FINE)
    return canvas.photographed(), canvas.labelled()


class _Canvas:
    def __init__(self, rng):
        self.rng = rng
        self.y, self.x = np.mgrid[: HEIGHT * FINE, : WIDTH * FINE].astype("float64")
        self.horizon = rng.uniform(0.38, 0.5) * HEIGHT * FINE
        self.vanishing = rng.uniform(0.3, 0.7) * WIDTH * FINE
        self.picture = np.zeros((*self.y.shape, 3))
        self.ids = np.full(self.y.shape, SKY, "uint8")

    def paint(self, where, color, i=None):
        self.picture[where] = color[where] if np.ndim(color) == 3 else color
        if i is not None:
            self.ids[where] = i

    def patches(self, cells):
        """Smooth noise from -1 to 1: random numbers on a grid of so many cells, interpolated."""
        grid = self.rng.uniform(-1, 1, (cells + 1, cells + 1))
        at = [np.linspace(0, cells, side) for side in self.y.shape]
        rows = np.stack([np.interp(at[0], range(cells + 1), column) for column in grid.T], axis=-1)
        return np.stack([np.interp(at[1], range(cells + 1), row) for row in rows])

    def color(self, *colors, spread=25):
        return np.array(colors[self.rng.integers(len(colors))]) + self.rng.uniform(-spread, spread, 3)

    def textured(self, color, cells, strength):
        return color + strength * self.patches(cells)[..., None]

    def sky(self):
        top = self.color((90, 140, 215), (150, 170, 190), (190, 190, 190))
        low = self.color((200, 220, 240), (225, 215, 205), (205, 205, 205), spread=12)
        part = np.clip(self.y / self.horizon, 0, 1)[..., None]
        clouds = np.clip(self.patches(5) + 0.5 * self.patches(12), 0, 1)[..., None]
        self.picture += top * (1 - part) + low * part
        self.picture += (240 - self.picture) * clouds * self.rng.uniform(0.2, 0.8)

    def road(self):
        below = self.y - self.horizon
        ground = below > 0
        tint = self.color((105, 105, 108), (130, 122, 112), (85, 88, 96), (150, 148, 145), spread=10)
        grain = 10 * self.patches(9) + 5 * self.patches(40)
        self.paint(ground, tint + grain[..., None], ROAD)
        with np.errstate(divide="ignore"):
            across = (self.x - self.vanishing) / below * EYE  # metres
            ahead = 60 * FINE * EYE / below
        for lane in (-3.5, 0.0, 3.5):
            dashed = (ahead + self.rng.uniform(0, 6)) % 6 < 3 if lane == 0 else ahead > 0
            self.paint(ground & dashed & (abs(across - lane) < 0.09), tint + 75)
        wet = ground & (self.patches(6) > self.rng.uniform(0.35, 0.9))
        self.picture[wet] = 0.6 * self.picture[wet] + 0.4 * np.array((150, 165, 185))

    def far_trees(self):
        high = self.horizon - FINE * (4 + 4 * self.patches(14)[0])
        there = (self.y > high[None]) & (self.y <= self.horizon)
        self.paint(there, self.textured(self.color((80, 110, 75), (110, 120, 100)), 40, 25), TREE)

    def street_side(self, side):
        """A row of houses along the street, each a piece of one plane that runs to the vanishing point."""
        across = side * (self.x - self.vanishing)
        start = self.rng.uniform(2, 9) * FINE
        while start < WIDTH * FINE:
            stop = start * self.rng.uniform(1.4, 2.1) + 2 * FINE
            away, high = self.rng.uniform(6, 9), self.rng.uniform(4, 13)
            if self.rng.random() < 0.83:
                metre = np.maximum(across, 1e-6) / away  # pixels of one metre at this column of the plane
                base = self.horizon + EYE * metre
                up = (base - self.y) / metre  # metres above the road
                wall = (across >= start) & (across < stop) & (up > 0) & (up < high)
                tone = self.color((150, 105, 85), (165, 155, 135), (120, 120, 125), (190, 180, 165), (110, 130, 150))
                self.paint(wall, self.textured(tone, 30, 12), BUILDING)
                along = 60 * FINE / np.maximum(metre, 1e-6)
                window = wall & (along % 3.2 > 1.5) & (up % 3 > 1) & (up % 3 < 2.4)
                self.paint(window, self.color((60, 70, 85), (170, 195, 220), (200, 190, 150)))
                self.paint(wall & (up > high - 0.5), tone * 0.7)
            start = stop

    def place(self, below, near, far):
        """A column beside the middle of the street, `near` to `far` metres from it; and the pixels of one metre there."""
        metre = below / EYE
        return self.vanishing + self.rng.choice((-1, 1)) * self.rng.uniform(near, far) * metre, metre

    def disc(self, x, y, wide, high):
        return ((self.x - x) / wide) ** 2 + ((self.y - y) / high) ** 2 < 1

    def box(self, left, right, top, bottom):
        return (self.x >= left) & (self.x < right) & (self.y >= top) & (self.y < bottom)

    def shadow(self, x, below, wide):
        where = self.disc(x, self.horizon + below, wide, 0.12 * below) & (self.ids == ROAD)
        self.picture[where] *= 0.55

    def tree(self, below):
        x, metre = self.place(below, 3, 6.5)
        foot, rng = self.horizon + below, self.rng
        self.shadow(x, below, 1.2 * metre)
        self.paint(self.box(x - 0.16 * metre, x + 0.16 * metre, foot - 3 * metre, foot), self.color((85, 70, 55)), TREE)
        leaves = self.color((70, 105, 55), (95, 120, 60), (140, 115, 60), (60, 85, 70))
        crown = np.zeros(self.y.shape, bool)
        for _ in range(9):
            turn, out, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0, 1.2), rng.uniform(0.6, 1.1)
            middle = foot - 3.4 * metre + out * np.sin(turn) * metre
            crown |= self.disc(x + out * np.cos(turn) * metre, middle, radius * metre, radius * metre)
        crown &= self.patches(60) > -0.75  # the sky shines through
        self.paint(crown, self.textured(leaves, 60, 35) + 15 * self.patches(16)[..., None], TREE)

    def pole(self, below):
        x, metre = self.place(below, 3, 5)
        foot, thick = self.horizon + below, max(0.1 * metre, 0.75 * FINE)
        gray = self.color((70, 72, 75), (150, 150, 150), (95, 85, 70), spread=12)
        top = foot - self.rng.uniform(3.2, 5.5) * metre
        self.paint(self.box(x - thick, x + thick, top, foot), gray, POLE)
        if self.rng.random() < 0.5:  # a lamp's arm, towards the street
            arm = 1.1 * metre * np.sign(self.vanishing - x)
            self.paint(self.box(min(x, x + arm), max(x, x + arm), top, top + 1.5 * thick), gray, POLE)

    def car(self, below):
        x, metre = self.place(below, 1.2, 2.6)
        foot, wide = self.horizon + below, 0.9 * metre
        self.shadow(x, below, 1.25 * wide)
        body = self.color((160, 45, 40), (45, 65, 140), (200, 200, 200), (60, 60, 62), (120, 125, 130), (60, 95, 65))
        for dx in (-0.72, 0.72):
            self.paint(
                self.box(x + (dx - 0.18) * wide, x + (dx + 0.18) * wide, foot - 0.5 * metre, foot), (28,) * 3, CAR
            )
        hull = self.box(x - wide, x + wide, foot - 0.85 * metre, foot - 0.2 * metre)
        up = (foot - self.y) / metre
        slope = wide * (1 - 0.35 * np.clip((up - 0.8) / 0.7, 0, 1))
        cabin = (up > 0.8) & (up < 1.5) & (abs(self.x - x) < slope)
        self.paint(hull | cabin, self.textured(body, 24, 15), CAR)
        self.paint(
            (up > 0.92) & (up < 1.38) & (abs(self.x - x) < slope - 0.12 * metre),
            self.color((55, 65, 75), (150, 170, 190)),
        )
        lamp = self.color((190, 30, 25), (245, 240, 215), spread=5)
        for dx in (-0.8, 0.8):
            self.paint(self.disc(x + dx * wide, foot - 0.65 * metre, 0.14 * wide, 0.1 * wide), lamp)

    def pedestrian(self, below):
        x, metre = self.place(below, 1.5, 4.5)
        foot, size = self.horizon + below, metre * self.rng.uniform(0.85, 1.1)
        self.shadow(x, below, 0.4 * metre)
        coat, legs = (
            self.color((150, 50, 50), (50, 70, 120), (60, 60, 60), (170, 150, 60), (90, 110, 80)) for _ in range(2)
        )
        stride = self.rng.uniform(0.05, 0.22) * size
        up = foot - self.y
        for foot_at in (-stride, stride):
            line = x + foot_at * (1 - up / (0.85 * size))
            self.paint((up >= 0) & (up < 0.85 * size) & (abs(self.x - line) < 0.1 * size), legs, PEDESTRIAN)
        self.paint(self.disc(x, foot - 1.1 * size, 0.24 * size, 0.42 * size), coat, PEDESTRIAN)
        skin = self.color((215, 175, 150), (150, 105, 80), (95, 65, 50), spread=12)
        self.paint(self.disc(x, foot - 1.6 * size, 0.13 * size, 0.16 * size), skin, PEDESTRIAN)

    def photographed(self):
        """The picture at its size, as a camera of changing light, haze and noise sees it; the lowest rows are the driver's own bonnet."""
        self.bonnet = HEIGHT - 3 - 1.8 * self.patches(8)[0, ::FINE]
        small = self.picture.reshape(HEIGHT, FINE, WIDTH, FINE, 3).mean((1, 3))
        rows = np.arange(HEIGHT)[:, None]
        small[rows >= self.bonnet] = self.color((30, 30, 34), (70, 40, 40), spread=8)
        haze = self.rng.uniform(0, 0.35) * np.exp(-(((rows - self.horizon / FINE) / 14) ** 2))[..., None]
        small = small * (1 - haze) + 200 * haze
        light = self.rng.uniform(0.55, 1.1) * (1 + 0.15 * self.patches(2)[::FINE, ::FINE, None])
        small = small * light * (1 + self.rng.uniform(-0.1, 0.1, 3))
        small += self.rng.normal(0, self.rng.uniform(2, 7), small.shape)
        return np.rint(small.clip(0, 255)).astype("uint8")

    def labelled(self):
        """The ids, and void where an annotator would leave it: raggedly along some borders, and on the bonnet."""
        ids = self.ids[FINE // 2 :: FINE, FINE // 2 :: FINE].copy()
        border = np.zeros(ids.shape, bool)
        border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
        border[1:] |= ids[1:] != ids[:-1]
        void = border & (self.patches(16)[::FINE, ::FINE] > 0.25)
        ids[void | (np.arange(HEIGHT)[:, None] >= self.bonnet)] = VOID
        return ids


def write(path) -> None:
    """Draw all scenes into a zip file."""
    seed = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for split, count in SPLITS.items():
            for i in range(count):
                image, mask = scene(seed)
                seed += 1
                for part, contents in (("images", jpeg(image)), ("masks", _png(mask))):
                    name = f"streets/{split}/{part}/{split}_{i:02}.{'jpg' if part == 'images' else 'png'}"
                    file.writestr(zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0)), contents, zipfile.ZIP_DEFLATED)


def jpeg(image) -> bytes:
    """An image as the bytes of its file."""
    contents = io.BytesIO()
    Image.fromarray(image).save(contents, "JPEG", quality=85)
    return contents.getvalue()


def _png(mask):
    colors = dict(enumerate(COLORS)) | {VOID: VOID_COLOR}
    picture = Image.fromarray(mask)
    picture.putpalette([value for i in range(256) for value in bytes.fromhex(colors.get(i, "#808080")[1:])])
    contents = io.BytesIO()
    picture.save(contents, "PNG", optimize=True)
    return contents.getvalue()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
