"""Random augmentation of images, with pillow: crop, flip, color, randaugment."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

Change = Callable[[Any, np.random.Generator], Any]

SMALLEST_CROP = 0.6  # of an image's area: the object that determines the class may be at a side
COLOR = 0.3  # maximum relative change of brightness, contrast and saturation
OPERATIONS, MAGNITUDE = 2, 0.3  # RandAugment's N, and its M of 9 as a fraction of 30
GRAY = (128, 128, 128)


def augment_images(pixels: "torch.Tensor", names: Sequence[str]) -> "torch.Tensor":
    """Return bytes [images, 3, height, width], each image changed by the augmentations `names`, in turn.

    The seed comes from torch's generator, whose state checkpoints keep.
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
    """Crop to 60% to 100% of the area, a ratio of 3:4 to 4:3, and resize as before (Szegedy et al., 2015)."""
    from PIL import Image

    area, ratio = rng.uniform(SMALLEST_CROP, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = image.width * min(1.0, float(np.sqrt(area * ratio)))
    height = image.height * min(1.0, float(np.sqrt(area / ratio)))
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))


def flip(image: Any, rng: np.random.Generator) -> Any:
    """Mirror left and right with probability 0.5."""
    from PIL import ImageOps

    return ImageOps.mirror(image) if rng.random() < 0.5 else image


def color(image: Any, rng: np.random.Generator) -> Any:
    """Change brightness, contrast and saturation by up to 30% each."""
    from PIL import ImageEnhance

    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - COLOR, 1 + COLOR))
    return image


def rand_augment(image: Any, rng: np.random.Generator) -> Any:
    """Apply two of fourteen changes at random, each at 9/30 of its strength (RandAugment; Cubuk et al., 2020)."""
    for number in rng.integers(0, len(CHANGES), OPERATIONS):
        image = CHANGES[number](image, float(rng.choice((-1, 1))) * MAGNITUDE)
    return image


AUGMENTATIONS: dict[str, Change] = {"crop": crop, "flip": flip, "color": color, "randaugment": rand_augment}


def _enhance(name: str) -> Callable[[Any, float], Any]:
    def change(image: Any, strength: float) -> Any:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, name)(image).enhance(1 + 0.9 * strength)

    return change


def _transform(*matrix: Callable[[float, Any], float]) -> Callable[[Any, float], Any]:
    """Return an affine change: `matrix` are the functions of its six coefficients, given strength and image."""

    def change(image: Any, strength: float) -> Any:
        from PIL import Image

        numbers = tuple(number(strength, image) for number in matrix)
        return image.transform(image.size, Image.Transform.AFFINE, numbers, Image.Resampling.BILINEAR, fillcolor=GRAY)

    return change


def _rotate(image: Any, strength: float) -> Any:
    from PIL import Image

    return image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=GRAY)


def _tone(name: str, *arguments: Callable[[float], int]) -> Callable[[Any, float], Any]:
    def change(image: Any, strength: float) -> Any:
        from PIL import ImageOps

        return getattr(ImageOps, name)(image, *(argument(abs(strength)) for argument in arguments))

    return change


CHANGES: tuple[Callable[[Any, float], Any], ...] = (
    lambda image, strength: image,
    _tone("autocontrast"),
    _tone("equalize"),
    _tone("posterize", lambda s: 8 - round(4 * s)),
    _tone("solarize", lambda s: round(255 * (1 - s))),
    *map(_enhance, ("Brightness", "Contrast", "Color", "Sharpness")),
    _rotate,
    _transform(_one := lambda s, i: 1.0, lambda s, i: 0.3 * s, _no := lambda s, i: 0.0, _no, _one, _no),  # shear
    _transform(_one, _no, _no, lambda s, i: 0.3 * s, _one, _no),
    _transform(_one, _no, lambda s, i: 0.45 * s * i.width, _no, _one, _no),  # shift
    _transform(_one, _no, _no, _no, _one, lambda s, i: 0.45 * s * i.height),
)
