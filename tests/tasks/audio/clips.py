"""Tones and feature extractors for the tests of audio tasks."""

from pathlib import Path
from typing import Any

import numpy as np

from hpo.config.model_ref import ModelRef
from hpo.training.models.processor import load_processor
from tests.small_models import save_feature_extractor


def tone(pitch: float, seconds: float, rate: int) -> Any:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def processor_of(folder: Path, architecture: str = "wav2vec2") -> Any:
    save_feature_extractor(folder / architecture, architecture)
    return load_processor(ModelRef(name=str(folder / architecture)), "AutoFeatureExtractor")
