"""From images of any size to one size, by a stated rule; and predicted masks back to where they came from."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cnn_zoo.errors import InputError

HOW = ("resize", "crop", "letterbox", "short_side_crop")
BORDERS = ("constant", "reflect", "edge")


@dataclass(frozen=True)
class Placement:
    """Where an image of one size lies on the canvas of another: it is brought to `scaled`, whose corner comes to `top`, `left`.

    Attributes:
        shape: `(height, width)` of the image.
        scaled: `(height, width)` that it is resized to.
        canvas: `(height, width)` that comes out; what `scaled` does not cover is border, and what lies beyond is cut off.
        top, left: Of `scaled` on the canvas, in pixels; below 0 where it is cut.
    """

    shape: tuple[int, int]
    scaled: tuple[int, int]
    canvas: tuple[int, int]
    top: int
    left: int

    def back(self, mask: np.ndarray, fill: int) -> np.ndarray:
        """A mask `canvas` of class ids, as a model predicts it, as a mask of the image, `shape`; nearest.

        Args:
            mask: `(height, width)` integers.
            fill: The id where the image was cut off and nothing is known.

        Raises:
            InputError: The mask is not of the size of the canvas.
        """
        if mask.shape != self.canvas:
            raise InputError(f"the mask is {mask.shape} and was to be {self.canvas}")
        here, there = self._windows()
        whole = np.full(self.scaled, fill, np.result_type(mask.dtype, np.min_scalar_type(fill)))
        whole[here] = mask[there]
        return nearest(whole, self.shape)

    def _windows(self):
        """The part of `scaled` that is seen, and the part of the canvas that it fills, as slices."""
        here, there = [], []
        for offset, have, want in zip((self.top, self.left), self.scaled, self.canvas):
            start, stop = max(0, -offset), min(have, want - offset)
            here.append(slice(start, stop))
            there.append(slice(start + offset, stop + offset))
        return tuple(here), tuple(there)


@dataclass(frozen=True)
class Size:
    """How images and their masks come to one height and width.

    - `"resize"`: stretched; the aspect changes.
    - `"crop"`: the centre, unscaled; a side that is too short gets a border.
    - `"letterbox"`: scaled to fit in, the aspect kept, centred; the rest is border.
    - `"short_side_crop"`: scaled to cover, the aspect kept, and the centre cut out: how ImageNet's classifiers are trained and measured.

    Images are resized bilinearly, antialiased when they shrink (`tf.image.resize(antialias=True)`, which predicting and exported models use, within
    one level of gray); masks take the nearest pixel, centres aligned. An odd difference puts the larger part below and to the right.

    Attributes:
        height, width: What comes out, in pixels.
        how: One of the above.
        border: Of images: `"constant"`, `"reflect"` (mirrored, the outermost pixel not repeated) or `"edge"` (the outermost pixel). That of masks is
            always their ignore id.
        value: Of the constant border, 0..255.

    Raises:
        InputError: Arguments that are none of these.
    """

    height: int
    width: int
    how: str = "resize"
    border: str = "constant"
    value: float = 0

    def __post_init__(self):
        for side in (self.height, self.width):
            if isinstance(side, bool) or not hasattr(side, "__index__") or side < 1:
                raise InputError(f"height and width are whole numbers of at least 1, not {side!r}")
        if self.how not in HOW:
            raise InputError(f"how is one of {', '.join(HOW)}, not {self.how!r}")
        if self.border not in BORDERS:
            raise InputError(f"border is one of {', '.join(BORDERS)}, not {self.border!r}")
        if isinstance(self.value, (bool, str)) or not np.isscalar(self.value) or not 0 <= self.value <= 255:
            raise InputError(f"the value of the border lies in 0..255, not {self.value!r}")

    def place(self, shape) -> Placement:
        """Where an image of this `(height, width, ...)` comes to lie."""
        have, want = tuple(map(int, shape[:2])), (int(self.height), int(self.width))
        scales = [w / h for w, h in zip(want, have)]
        if self.how == "resize":
            scaled = want
        elif self.how == "crop":
            scaled = have
        else:
            scale = min(scales) if self.how == "letterbox" else max(scales)
            scaled = tuple(w if s == scale else max(1, round(h * scale)) for h, w, s in zip(have, want, scales))
        # Below 0 too the larger part is to be below and to the right.
        top, left = ((w - s) // 2 if w >= s else -((s - w) // 2) for w, s in zip(want, scaled))
        return Placement(have, scaled, want, top, left)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """An image `(h, w, channels)`, uint8 or float32 0..255, as `(height, width, channels)` of the same type."""
        place = self.place(image.shape)
        here, there = place._windows()
        seen = bilinear(image, place.scaled)[here]
        if seen.shape[:2] == place.canvas:
            return seen
        margins = [(window.start, want - window.stop) for window, want in zip(there, place.canvas)]
        options = {"constant_values": self.value} if self.border == "constant" else {}
        return np.pad(seen, [*margins, (0, 0)], mode=self.border, **options)

    def apply_mask(self, mask: np.ndarray, ignore: int | None = None) -> np.ndarray:
        """A mask `(h, w)` of class ids as `(height, width)` of the same type.

        Args:
            mask: Integers.
            ignore: The id of the border.

        Raises:
            InputError: There is a border and no id for it, or the type of the mask cannot hold it.
        """
        place = self.place(mask.shape)
        here, there = place._windows()
        seen = nearest(mask, place.scaled)[here]
        if seen.shape == place.canvas:
            return seen
        if ignore is None:
            raise InputError(
                f"{self.how!r} gives a {mask.shape[0]}x{mask.shape[1]} mask a border: give its id, ignore="
            )
        if not np.iinfo(mask.dtype).min <= ignore <= np.iinfo(mask.dtype).max:
            raise InputError(f"the border id {ignore} does not fit into a mask of {mask.dtype}")
        result = np.full(place.canvas, ignore, mask.dtype)
        result[there] = seen
        return result

    def describe(self) -> dict:
        """Plain values, with a sentence."""
        return {**dataclasses.asdict(self), "sentence": str(self)}

    def __str__(self) -> str:
        border = f"{self.border} border" + (f" of {self.value:g}" if self.border == "constant" else "")
        words = {
            "resize": "stretched to {}",
            "crop": f"the central {{}}, {border} where it is smaller",
            "letterbox": f"fitted into {{}} with its aspect kept, {border}",
            "short_side_crop": "scaled until it covers {} with its aspect kept, the centre cut out",
        }[self.how]
        return words.format(f"{self.height}x{self.width}")


def bilinear(image: np.ndarray, size) -> np.ndarray:
    """Resize one image `(h, w, channels)`, uint8 or float32, bilinearly, antialiased when it shrinks."""
    if image.shape[:2] == tuple(size):
        return image
    across = size[::-1]
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        return np.asarray(Image.fromarray(image).resize(across, Image.Resampling.BILINEAR))
    planes = [  # one by one: of four channels Pillow would take the last for transparency and weigh the others by it
        np.asarray(Image.fromarray(np.ascontiguousarray(image[..., i])).resize(across, Image.Resampling.BILINEAR))
        for i in range(image.shape[-1])
    ]
    return np.stack(planes, axis=-1)


def nearest(masks: np.ndarray, size) -> np.ndarray:
    """Resize `(..., h, w)` by the pixel in which each new centre lies, in whole numbers, without rounding."""
    if masks.shape[-2:] == tuple(size):
        return masks
    rows, columns = (((2 * np.arange(want) + 1) * have) // (2 * want) for want, have in zip(size, masks.shape[-2:]))
    return masks[..., rows[:, None], columns]
