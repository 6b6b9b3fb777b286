"""Opening image files as people see them: upright, in three colours."""

from typing import Any

from hpo.data.media.files import Item, open_item
from hpo.data.optional import require_module


def open_image(item: Item) -> Any:
    """A `PIL.Image` in RGB, turned as its EXIF data says, as transformers' own pipelines open it.

    Raises what pillow raises for a broken or truncated file.
    """
    image_module = require_module("PIL.Image", "vision", "Reading images")
    operations = require_module("PIL.ImageOps", "vision", "Reading images")
    with open_item(item) as file, image_module.open(file) as image:
        image.load()
        upright = operations.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits of grey, which a plain conversion cuts off at 255
            upright = upright.point(lambda value: value / 256).convert("L")
        return upright.convert("RGB")
