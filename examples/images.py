"""Search over two models that classify images of circles and squares, from creating the images to predictions.

    python examples/images.py

It takes under a minute on a CPU. The models have random weights, so that nothing is downloaded; for your own images use
pre-trained models such as facebook/deit-tiny-patch16-224 and microsoft/resnet-18.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTImageProcessorPil, ViTModel

import hpo

SIDE = 32


def draw(path: Path, label: str, rng: np.random.Generator) -> None:
    """Draw a circle or a square of random color, size and position."""
    image = Image.new("RGB", (64, 48), tuple(rng.integers(0, 90, 3).tolist()))
    size = int(rng.integers(14, 30))
    left, top = int(rng.integers(0, 64 - size)), int(rng.integers(0, 48 - size))
    pen = ImageDraw.Draw(image)
    shape = pen.ellipse if label == "circle" else pen.rectangle
    shape((left, top, left + size, top + size), fill=tuple(rng.integers(130, 256, 3).tolist()))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def build_models(folder: Path) -> list[str]:
    """Save a small vision transformer and a small residual network, each with its image processor."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    models = {
        "vit": ViTModel(ViTConfig(image_size=SIDE, patch_size=8, **shape)),
        "resnet": ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic")),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder / name)
    return [str(folder / name) for name in models]


def main(folder: Path, rows: int = 120, trials: int = 4) -> hpo.Result:
    rng = np.random.default_rng(0)
    for label in ("circle", "square"):
        for row in range(rows):
            draw(folder / "shapes" / label / f"{row}.png", label, rng)
    study = {
        "name": "shapes",
        "task": "image-classification",
        "data": str(folder / "shapes"),  # one folder, which is split into train, validation and test
        "models": build_models(folder / "models"),
        "search_space": {
            "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
            "epochs": {"low": 3, "high": 6},
            "frozen_layers": {"share": [0, 0.5]},
            "augmentation": ["none", "crop+flip"],
        },
        "budget": {"max_trials": trials},
        "confirm": {"top": 1, "seeds": 1},
        "backend": "inline",
        "devices": "cpu",
    }
    result = hpo.run(study)
    for row in range(3):
        draw(folder / "new" / f"{row}.png", ("circle", "square")[row % 2], rng)
    for answer in result.predict(sorted(map(str, (folder / "new").iterdir()))):
        print(Path(answer["image"]).name, answer["label"], round(answer["score"], 2))
    return result


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print("test accuracy:", round(main(Path(folder)).metrics["accuracy"], 3))
