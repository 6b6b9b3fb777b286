"""Image classification: an image → one of several classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo.core.format import count
from hpo.data.media.files import Item, media_values
from hpo.data.media.images import has_one_color, open_image
from hpo.errors import ModelError
from hpo.tasks.augmentation.image import AUGMENTATIONS, augment_images
from hpo.tasks.baselines import logistic_baseline
from hpo.tasks.classification import Classification
from hpo.tasks.media import MediaTask
from hpo.tasks.objective import Batch
from hpo.tasks.task_data import TaskData

if TYPE_CHECKING:
    import torch

PATCH = 16 * 16  # pixels that cost about as much as a token of a text: one patch of ViT
THUMBNAIL = (32, 32)

MODELS = {
    "small": ("microsoft/resnet-18", "google/mobilenet_v2_1.0_224", "facebook/deit-tiny-patch16-224"),
    "base": (
        "google/vit-base-patch16-224-in21k",
        "facebook/convnext-tiny-224",
        "microsoft/swin-tiny-patch4-window7-224",
    ),
    "large": ("google/vit-large-patch16-224-in21k", "facebook/convnext-large-224-22k"),
}
USAGE = """\
classify = pipeline("image-classification", model="path/to/this/folder")
classify("an-image.jpg")"""


class ImageClassification(Classification, MediaTask):
    """An image → a class.

    Images are cached as bytes, resized and cropped by the model's processor (a quarter of the size of floats), and
    rescaled and normalized in the batch.
    """

    name = "image-classification"
    kind = input_key = "image"
    auto_class = "AutoModelForImageClassification"
    processor_class = final_processor_class = "AutoImageProcessor"
    pipeline_tag = "image-classification"
    encode_batch_size = 256
    augmentations = tuple(AUGMENTATIONS)
    search_space = "vision"
    hub_models = MODELS
    usage = USAGE
    limitations = "It knows the classes above only, and assigns one of them to any image."

    def measure(self, item: Item) -> float:
        return float(has_one_color(open_image(item)))

    def describe_files(self, measures: Sequence[float], origin: str) -> list[str]:
        blank = sum(map(bool, measures))
        return [f"{origin}: {blank} of {count(len(measures), 'image')} have one color only"] if blank else []

    def check_model(self, model: Any, processor: Any) -> str:
        """Compare the cached and then normalized pixels with the processor's own output."""
        from PIL import Image

        channels = _channels(processor)
        read = getattr(getattr(model, "config", None), "num_channels", channels)
        if read != channels:
            return (
                f"it reads images of {read} channels, and its image processor makes {channels}: "
                "color images (3) and gray ones (1) are supported"
            )
        noise = np.random.default_rng(0).integers(0, 256, (67, 91, 3), dtype=np.uint8)
        image = _converted([Image.fromarray(noise)], processor)[0]
        own = processor(images=[image], return_tensors="pt")["pixel_values"]
        ours = self.prepare_batch({"pixel_values": _pixels([image], processor)}, processor)["pixel_values"]
        if ours.shape != own.shape or float((ours - own).abs().max()) > 1e-3:
            return "its image processor does more than resize, crop, rescale and normalize"
        return ""

    def extract_features(
        self, items: Sequence[Item], processor: Any, max_length: int
    ) -> tuple[str, list[NDArray[Any]]]:
        return "pixel_values", list(
            _pixels(_converted([open_image(item) for item in items], processor), processor).numpy()
        )

    def compute_costs(self, features: Sequence[NDArray[Any]], processor: Any) -> list[int]:
        return [max(1, array.shape[1] * array.shape[2] // PATCH) for array in features]

    def augment(self, batch: Batch, names: Sequence[str]) -> Batch:
        pixels = batch["pixel_values"]
        colors = pixels.expand(-1, 3, -1, -1).contiguous()  # gray ones are augmented as colors
        return {**batch, "pixel_values": augment_images(colors, names)[:, : pixels.shape[1]]}

    def prepare_batch(self, batch: Batch, processor: Any) -> Batch:
        """Rescale and normalize bytes [images, channels, height, width] to floats."""
        import torch

        pixels = batch["pixel_values"].float()
        if processor.do_rescale:
            pixels *= processor.rescale_factor
        if processor.do_normalize:
            mean, std = (torch.tensor(values)[:, None, None] for values in (processor.image_mean, processor.image_std))
            pixels = (pixels - mean) / std
        return {**batch, "pixel_values": pixels}

    def baseline(self, data: TaskData, metric: str) -> tuple[str, float] | None:
        def vectors(rows: Any) -> NDArray[Any]:
            small = [open_image(item).resize(THUMBNAIL) for item in media_values(rows, self.kind)]
            return np.stack([np.asarray(image, np.float32).ravel() / 255 for image in small])

        return logistic_baseline("logistic regression on pixels", vectors, data, self.scorer(metric))


def _channels(processor: Any) -> int:
    """Return the channels of the images that a processor makes: 1 where it normalizes one, as for models of MNIST."""
    return len(getattr(processor, "image_mean", None) or (0, 0, 0))


def _converted(images: Sequence[Any], processor: Any) -> Sequence[Any]:
    """Return color images as gray ones, with a channel dimension, where the model reads one channel."""
    if _channels(processor) != 1:
        return images
    return [np.asarray(image.convert("L"))[:, :, None] for image in images]


def _pixels(images: Sequence[Any], processor: Any) -> "torch.Tensor":
    """Return the processor's output for images, as bytes, without rescaling and normalization."""
    pixels = processor(images=list(images), do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
    if pixels.ndim != 4:
        raise ModelError("The image processor returns images of different shapes: one that resizes or crops is needed.")
    return pixels.round().clamp(0, 255).byte() if pixels.is_floating_point() else pixels.byte()
