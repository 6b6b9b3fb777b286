"""Image files: RGB, upright, and 16-bit grayscale without clipping."""

import io
from typing import Any

import numpy as np
import pytest

from hpo.data.media.files import as_item
from hpo.data.media.images import has_one_color, open_image

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


def test_transparent_pixels_are_white() -> None:
    drawing = np.zeros((2, 2, 4), np.uint8)  # black, fully transparent
    drawing[0, 0, 3], drawing[0, 1, 3] = 255, 128
    for mode in ("RGBA", "LA"):
        opened = np.asarray(open_image(as_item(encoded(Image.fromarray(drawing).convert(mode)))))
        assert opened[..., 0].tolist() == [[0, 127], [255, 255]]
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.putpixel((0, 0), 0)
    opened = np.asarray(open_image(as_item(encoded(palette, transparency=0))))
    assert opened[0].tolist() == [[255, 255, 255], [9, 9, 9]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.5, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 1_000_000, 2_000_000]], np.int32), [0, 128, 255]),
        (np.array([[0, 2048, 4095]], np.uint16), [0, 128, 255]),
        (np.array([[0, 128, 255]], np.uint16), [0, 128, 255]),
    ],
)
def test_values_are_scaled_by_their_range(values: Any, expected: list[int]) -> None:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    assert np.asarray(open_image(as_item(file.getvalue())))[0, :, 0].tolist() == expected


def test_one_color_is_recognized() -> None:
    assert has_one_color(Image.new("RGB", (3, 3), "red")) and not has_one_color(
        Image.linear_gradient("L").convert("RGB")
    )
