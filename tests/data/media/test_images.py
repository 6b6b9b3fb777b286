"""Image files: RGB, upright, and 16-bit grayscale without clipping."""

import io
from typing import Any

import numpy as np
import pytest

from hpo.data.media.files import as_item
from hpo.data.media.images import open_image

Image = pytest.importorskip("PIL.Image")


def encoded(image: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90°
    opened = open_image(as_item(encoded(Image.new("RGB", (9, 6)), exif=exif)))
    assert opened.size == (6, 9) and opened.mode == "RGB"


def test_16_bit_grayscale_is_scaled() -> None:
    image = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert np.asarray(open_image(as_item(encoded(image))))[0, :, 0].tolist() == [0, 128, 255]


def test_truncated_image_raises() -> None:
    with pytest.raises((OSError, SyntaxError)):
        open_image(as_item(encoded(Image.new("RGB", (64, 64)))[:60]))


def test_image_of_very_many_pixels_raises_without_a_warning() -> None:
    large = encoded(Image.new("1", (12_000, 12_000)))
    with pytest.raises(ValueError, match="12,000 x 12,000 pixels; at most 89 million"):
        open_image(as_item(large))
