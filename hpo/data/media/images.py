"""Image files as a viewer shows them: upright, in RGB, on white where they are transparent."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.data.media.files import Item, open_item
from hpo.data.optional import require_module

MOST_PIXELS = 2**30 // 12  # pillow's own limit for a warning: 256 MB in RGB
RANGES = (255, 4095, 65535)  # the largest values of 8, 12 and 16 bits


def open_image(item: Item) -> Any:
    """Return a `PIL.Image` in RGB, rotated by its EXIF orientation, as transformers' pipelines open it.

    Transparent pixels are white, and values of more than 8 bits are scaled by their range. Raises the exceptions of
    pillow for a corrupt or truncated file.
    """
    image_module = require_module("PIL.Image", "vision", "Reading images")
    operations = require_module("PIL.ImageOps", "vision", "Reading images")
    # Above this pillow warns of a decompression bomb, and above twice as many raises.
    image_module.MAX_IMAGE_PIXELS = None
    with open_item(item) as file, image_module.open(file) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(
                f"it has {image.width:,} x {image.height:,} pixels; at most {MOST_PIXELS / 1e6:.0f} million are read, "
                "for safety. Scale it down"
            )
        image.load()
        upright = operations.exif_transpose(image)
        if upright.mode.startswith("I") or upright.mode == "F":  # which `convert` would clip at 255
            return image_module.fromarray(_to_bytes(np.asarray(upright, np.float64))).convert("RGB")
        if upright.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in upright.info:
            upright = upright.convert("RGBA")  # `convert("RGB")` would show the color under transparent pixels: black
            white = image_module.new("RGBA", upright.size, "white")
            return image_module.alpha_composite(white, upright).convert("RGB")
        return upright.convert("RGB")


def _to_bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return values scaled to 0 to 255, by the least usual range that holds them, else by their own."""
    values = np.nan_to_num(values)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > RANGES[-1]:
        top = high - low or 1.0
        values = values - low
    elif high <= 1:
        top = 1.0
    else:
        top = next(limit for limit in RANGES if high <= limit)
    return np.asarray((values * 255 / top).round(), np.uint8)


def has_one_color(image: Any) -> bool:
    """Return whether all pixels of an image in RGB are equal."""
    return all(low == high for low, high in image.getextrema())
