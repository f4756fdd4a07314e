"""A landscape from a few random numbers: sky, sun, ridges in haze. Soft, cheap, repeatable."""

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Colour = tuple[float, float, float]

_RIDGES = 5


def landscape(entropy: list[int], size: tuple[int, int], drift: float = 0.0) -> Image.Image:
    """Paint one.

    Args:
        entropy: non-negative numbers; the same ones give the same picture.
        size: width and height in pixels.
        drift: 0 to 1, how far the view has moved to the side; near ridges move more than far ones.
    """
    chance = np.random.default_rng(entropy)
    hue = float(chance.random())
    width, height = (max(8, side // 2) for side in size)  # painted small: enlarging softens edges
    across = np.linspace(0, 1, width)[None, :] * width / height
    down = np.linspace(0, 1, height)[:, None]
    pixels = _blend(_colour(hue, 0.5, 0.55), _colour(hue + 0.09, 0.28, 1.0), down / 0.75)
    centre = (width / height * (0.25 + 0.5 * chance.random()), 0.2 + 0.25 * chance.random())
    pixels = _with_sun(pixels, across, down, centre, hue)
    for ridge in range(_RIDGES):
        depth = (ridge + 1) / _RIDGES
        line = _ridge_line(chance, across + drift * 0.25 * depth, depth)
        colour = _colour(hue + 0.06 - 0.1 * depth, 0.3 + 0.35 * depth, 0.85 - 0.62 * depth)
        cover = np.clip((down - line) * height / 1.5, 0, 1)[..., None]
        haze = _blend(colour, _colour(hue + 0.05, 0.25, 0.95), (down - line) * (1 - depth))
        pixels = pixels * (1 - cover) + haze * cover
    image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))
    return image.resize(size, Image.Resampling.BICUBIC)


def _with_sun(
    pixels: NDArray[np.float64],
    across: NDArray[np.float64],
    down: NDArray[np.float64],
    centre: tuple[float, float],
    hue: float,
) -> NDArray[np.float64]:
    distance = np.hypot(across - centre[0], down - centre[1])[..., None]
    glow = np.exp(-((distance / 0.28) ** 2)) * 0.5
    disc = np.clip((0.075 - distance) * 120, 0, 1)
    light = np.array(_colour(hue + 0.12, 0.12, 1.0))
    pixels = pixels + (light - pixels) * glow
    return pixels + (light - pixels) * disc


def _ridge_line(
    chance: np.random.Generator, across: NDArray[np.float64], depth: float
) -> NDArray[np.float64]:
    """Height of a ridge at each place across, from the top: a few waves on one another."""
    line = np.full_like(across, 0.42 + 0.42 * depth)
    for octave in range(4):
        waves = 2.2 * 1.9**octave * (0.8 + 0.5 * chance.random())
        phase = 2 * np.pi * chance.random()
        line = line + 0.075 / 1.9**octave * np.sin(across * waves * np.pi + phase)
    return line


def _blend(top: Colour, bottom: Colour, share: NDArray[np.float64]) -> NDArray[np.float64]:
    part = np.clip(share, 0, 1)[..., None]
    return np.array(top) * (1 - part) + np.array(bottom) * part


def _colour(hue: float, saturation: float, value: float) -> Colour:
    return colorsys.hsv_to_rgb(hue % 1, saturation, value)
