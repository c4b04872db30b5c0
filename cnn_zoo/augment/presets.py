"""Steps that belong together: by what the images show, and drawn from many."""

from dataclasses import dataclass

from cnn_zoo.augment.colour import (
    autocontrast,
    blur,
    brightness,
    contrast,
    equalize,
    gamma,
    hue,
    illumination,
    noise,
    posterize,
    saturation,
    sharpen,
    solarize,
)
from cnn_zoo.augment.geometry import elastic, flip, rotate, scale, shear, translate, turn
from cnn_zoo.augment.steps import Step, whole
from cnn_zoo.errors import InputError

PRESETS = {
    # No flips: a 6 is not a 9. Small turns, shifts and slants, as hands differ; strokes have no lighting, so values stay.
    "digits": (rotate(10), scale(0.9, 1.1, stretch=True), shear(0.1), translate(0.07)),
    # Photographs are taken upright: left and right may change places, top and bottom not. Light and colour vary. RGB.
    "natural": (
        flip(),
        rotate(10),
        scale(0.8, 1.25),
        translate(0.1),
        brightness(0.15),
        contrast(0.25),
        saturation(0.3),
        hue(10),
    ),
    # A specimen lies any way round; magnification is known, focus, exposure and detector noise vary. Any channels.
    "micrograph": (
        flip(True, True),
        turn(),
        rotate(15),
        scale(0.9, 1.1),
        brightness(0.1),
        contrast(0.2),
        gamma(0.8, 1.25),
        blur(1.0, p=0.3),
        noise(6.0, p=0.5),
    ),
    # Seen from above there is no up; the ground distance of a pixel is known. Bands are measurements: no hue, no shuffle. Any channels.
    "satellite": (
        flip(True, True),
        turn(),
        scale(0.9, 1.1),
        translate(0.1),
        brightness(0.08),
        contrast(0.15),
        illumination(0.1),
    ),
    # Left and right differ in the body, so no flips; it is laid into the machine nearly alike, and tissue gives way. Any channels.
    "medical": (
        rotate(10),
        scale(0.9, 1.1),
        translate(0.05),
        elastic(0.015),
        brightness(0.08),
        contrast(0.15),
        gamma(0.8, 1.25),
        noise(4.0, p=0.5),
    ),
}


@dataclass(frozen=True)
class rand_augment(Step):
    """Some steps of fourteen for each sample, all at one strength (RandAugment, Cubuk et al. 2020, arXiv:1909.13719).

    The list and the ends of its ranges are the paper's; contrast is stretched about the middle gray, and brightness is added,
    both up to what the original does to a middle gray.

    Args:
        count: Steps for each sample, with replacement.
        magnitude: 0..30, as the paper's code counts.
        colour: Whether saturation is among them: images are RGB.
    """

    count: int = 2
    magnitude: float = 9
    colour: bool = True

    def __post_init__(self):
        self.settle(count=whole("rand_augment", "count", self.count))
        if not 0 <= self.magnitude <= 30:
            raise InputError(f"rand_augment: magnitude must be 0..30, not {self.magnitude!r}")

    def chosen(self, rng):
        chosen = []
        for _ in range(self.count):
            chosen += _one_of_all(rng, self.magnitude / 30, self.colour, (0.3, 0.45, 30.0, 0.9, 4))
        return chosen


@dataclass(frozen=True)
class trivial_augment(Step):
    """One step of fourteen for each sample, at a random strength (TrivialAugment Wide, Müller & Hutter 2021, arXiv:2103.10158).

    The list is that of `rand_augment`, with the wider ranges of the paper's table 5.

    Args:
        colour: Whether saturation is among them: images are RGB.
    """

    colour: bool = True

    def chosen(self, rng):
        return _one_of_all(rng, rng.integers(31) / 30, self.colour, (0.99, 32 / 224, 135.0, 0.99, 6))


def _one_of_all(rng, strength, colour, ends):
    """One step, or none for the identity, at `strength` 0..1 of the ends of its range, either way where there are two."""
    slant, shift, angle, change, bits = ends
    sign = 1 if rng.integers(2) else -1

    def of(end):
        return (sign * strength * end,) * 2

    every = [
        lambda: [],
        lambda: [shear(of(slant), 0.0)],
        lambda: [shear(0.0, of(slant))],
        lambda: [translate(of(shift), 0.0)],
        lambda: [translate(0.0, of(shift))],
        lambda: [rotate(of(angle))],
        lambda: [brightness(of(change / 2))],
        lambda: [contrast(of(change))],
        lambda: [sharpen(of(change))],
        lambda: [posterize(8 - round(strength * bits))],
        lambda: [solarize(255 * (1 - strength))],
        lambda: [autocontrast()],
        lambda: [equalize()],
    ] + [lambda: [saturation(of(change))]] * bool(colour)
    return every[rng.integers(len(every))]()
