"""Images changed at random for training, with pillow: crop, flip, color, randaugment."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Change = Callable[[Any, np.random.Generator], Any]

SMALLEST_CROP = 0.6  # of an image's area: what is fine-tuned on has few images, and what is told apart may be at a side
COLOR = 0.3  # brightness, contrast and saturation, at most so much more or less
OPERATIONS, MAGNITUDE = 2, 0.3  # RandAugment's N, and its M of 9 as a share of 30
GREY = (128, 128, 128)


def augment_images(pixels: "torch.Tensor", names: Sequence[str]) -> "torch.Tensor":
    """Bytes [images, 3, height, width], each image changed by the augmentations called `names`, in turn.

    What is drawn comes from torch's generator, which a checkpoint keeps.
    """
    import torch
    from PIL import Image

    rng = np.random.default_rng(int(torch.randint(2**62, ())))
    changed = []
    for array in pixels.permute(0, 2, 3, 1).numpy():
        image = Image.fromarray(array)
        for name in names:
            image = AUGMENTATIONS[name](image, rng)
        changed.append(np.asarray(image))
    return torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2).contiguous()


def crop(image: Any, rng: np.random.Generator) -> Any:
    """A part of 60% to all of the image, 3:4 to 4:3 of its shape, as large as it was (Szegedy et al., 2015)."""
    from PIL import Image

    area, ratio = rng.uniform(SMALLEST_CROP, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = image.width * min(1.0, float(np.sqrt(area * ratio)))
    height = image.height * min(1.0, float(np.sqrt(area / ratio)))
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def flip(image: Any, rng: np.random.Generator) -> Any:
    """Left and right exchanged, in half of all cases."""
    from PIL import ImageOps

    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def color(image: Any, rng: np.random.Generator) -> Any:
    """Other brightness, contrast and saturation, by up to 30%."""
    from PIL import ImageEnhance

    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - COLOR, 1 + COLOR))
    return image


def rand_augment(image: Any, rng: np.random.Generator) -> Any:
    """Two of fourteen changes drawn at random, each at 9/30 of its strength (RandAugment; Cubuk et al., 2020)."""
    for number in rng.integers(0, len(CHANGES), OPERATIONS):
        image = CHANGES[number](image, float(rng.choice((-1, 1))) * MAGNITUDE)
    return image


AUGMENTATIONS: dict[str, Change] = {"crop": crop, "flip": flip, "color": color, "randaugment": rand_augment}


def _enhanced(name: str) -> Callable[[Any, float], Any]:
    def change(image: Any, strength: float) -> Any:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(image).enhance(1 + 0.9 * strength)

    return change


def _moved(*matrix: Callable[[float, Any], float]) -> Callable[[Any, float], Any]:
    """An affine change: `matrix` are its six numbers, of strength and image."""

    def change(image: Any, strength: float) -> Any:
        from PIL import Image

        numbers = tuple(number(strength, image) for number in matrix)
        return image.transform(image.size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR, fillcolor=GREY)

    return change


def _rotated(image: Any, strength: float) -> Any:
    from PIL import Image

    return image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=GREY)


def _toned(name: str, *arguments: Callable[[float], int]) -> Callable[[Any, float], Any]:
    def change(image: Any, strength: float) -> Any:
        from PIL import ImageOps

        return getattr(ImageOps, name)(image, *(argument(abs(strength)) for argument in arguments))

    return change


CHANGES: tuple[Callable[[Any, float], Any], ...] = (
    lambda image, strength: image,
    _toned("autocontrast"),
    _toned("equalize"),
    _toned("posterize", lambda s: 8 - round(4 * s)),
    _toned("solarize", lambda s: round(255 * (1 - s))),
    *map(_enhanced, ("Brightness", "Contrast", "Color", "Sharpness")),
    _rotated,
    _moved(_one := lambda s, i: 1.0, lambda s, i: 0.3 * s, _no := lambda s, i: 0.0, _no, _one, _no),  # shear
    _moved(_one, _no, _no, lambda s, i: 0.3 * s, _one, _no),
    _moved(_one, _no, lambda s, i: 0.45 * s * i.width, _no, _one, _no),  # shift
    _moved(_one, _no, _no, _no, _one, lambda s, i: 0.45 * s * i.height),
)
