import numpy as np
import pytest
from PIL import Image

from worker.generation.inputs import as_mask, sized, transparent


def half_transparent() -> Image.Image:
    """Red, and transparent in its left half."""
    image = Image.new("RGBA", (8, 4), "red")
    image.paste((255, 0, 0, 0), (0, 0, 4, 4))
    return image


def test_contain_keeps_the_whole_picture_and_cover_fills_the_frame() -> None:
    image = Image.new("RGB", (400, 100), "red")
    cover, contain = sized(image, (256, 256), "cover"), sized(image, (256, 256), "contain")
    assert cover.size == contain.size == (256, 256)
    assert cover.getpixel((128, 2)) == (255, 0, 0)
    assert contain.getpixel((128, 2)) == (0, 0, 0)


def test_a_size_change_keeps_the_colours_below_transparency() -> None:
    shaped = sized(half_transparent(), (16, 8), "cover")
    assert shaped.mode == "RGBA"
    assert shaped.getpixel((0, 0)) == (255, 0, 0, 0)
    assert shaped.getpixel((15, 0)) == (255, 0, 0, 255)


@pytest.mark.parametrize(
    "given",
    [
        half_transparent(),
        Image.fromarray(np.repeat([[255] * 4 + [0] * 4], 4, axis=0).astype("uint8")),
    ],
    ids=["transparency", "white on black"],
)
def test_a_mask_says_the_same_in_every_channel(given: Image.Image) -> None:
    mask = as_mask(given)
    for channel in "RGB":
        assert np.asarray(mask.getchannel(channel))[:, :4].min() == 255
        assert np.asarray(mask.getchannel(channel))[:, 4:].max() == 0
    alpha = 255 - np.asarray(mask.getchannel("A"))  # LoadImage's mask is what is transparent
    assert (alpha == np.asarray(mask.getchannel("R"))).all()


def test_an_opaque_picture_is_not_transparent() -> None:
    assert not transparent(Image.new("RGBA", (2, 2), (1, 2, 3, 255)))
    assert transparent(half_transparent())
