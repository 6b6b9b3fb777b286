"""Image files as a viewer shows them: upright, in RGB."""

from typing import Any

from hpo.data.media.files import Item, open_item
from hpo.data.optional import require_module

MOST_PIXELS = 2**30 // 12  # pillow's own limit for a warning: 256 MB in RGB


def open_image(item: Item) -> Any:
    """Return a `PIL.Image` in RGB, rotated by its EXIF orientation, as transformers' pipelines open it.

    Raises the exceptions of pillow for a corrupt or truncated file.
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
        if upright.mode.startswith("I"):  # 16-bit grayscale, which `convert` would clip at 255
            upright = upright.point(lambda value: value / 256).convert("L")
        return upright.convert("RGB")
