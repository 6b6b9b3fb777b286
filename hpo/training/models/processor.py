"""Loads what converts a user's inputs to a model's: its tokenizer, image processor or feature extractor."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpo.config.model_ref import ModelRef
from hpo.errors import ModelError
from hpo.training.models.hub import from_pretrained_arguments


def load_processor(ref: ModelRef, kind: str) -> Any:
    """Load the model's processor of `kind` (a task's `processor_class`), or the one that `processor:` names.

    Raises `ModelError` where there is none.
    """
    return LOADERS[kind](ref)


def load_tokenizer(ref: ModelRef) -> Any:
    """Load the model's tokenizer, and set a padding token where it has none.

    It pads on the right, as training does, also when it is saved and loaded by transformers alone.
    """
    tokenizer = _load(ref, "AutoTokenizer", "tokenizer")
    tokenizer.padding_side = "right"
    # Without its files, AutoTokenizer silently returns one with special tokens only: every word would be unknown.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise _missing(ref, "tokenizer")
    if tokenizer.pad_token_id is None:
        # Decoders such as GPT-2 were trained without padding; under the attention mask any token can be used.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if ref.source_prefix:
        tokenizer.init_kwargs["source_prefix"] = ref.source_prefix  # saved and loaded with it
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{ref.label}: its tokenizer has no padding token, no end-of-text token and no unknown token.")
    return tokenizer


def load_image_processor(ref: ModelRef) -> Any:
    """Load the model's image processor with the pillow backend: the other one needs torchvision."""
    if ref.processor is None:
        from transformers import PreTrainedConfig

        with suppress(OSError):  # a folder with a processor only
            settings, _ = PreTrainedConfig.get_config_dict(ref.name, **from_pretrained_arguments(ref))
            if settings.get("model_type") == "timm_wrapper":
                return _timm_processor(settings["pretrained_cfg"])
    return _load(ref, "AutoImageProcessor", "image processor", backend="pil")


def _timm_processor(settings: Mapping[str, Any]) -> Any:
    """Return an image processor that transforms images as timm does for its models.

    The shorter side is scaled to the model's input size over `crop_pct`, then the center is cropped.
    """
    from PIL.Image import Resampling
    from transformers import CLIPImageProcessorPil

    _, height, width = settings["input_size"]
    return CLIPImageProcessorPil(
        size={"shortest_edge": math.floor(max(height, width) / settings.get("crop_pct", 0.875))},
        crop_size={"height": height, "width": width},
        resample=Resampling[settings.get("interpolation", "bicubic").upper()],
        image_mean=list(settings["mean"]),
        image_std=list(settings["std"]),
    )


def load_feature_extractor(ref: ModelRef) -> Any:
    """Load the model's feature extractor for audio."""
    return _load(ref, "AutoFeatureExtractor", "feature extractor")


def load_composite_processor(ref: ModelRef) -> Any:
    """Load a processor of several parts (a feature extractor and a tokenizer), as saved with a final model."""
    return _load(ref, "AutoProcessor", "processor")


LOADERS: dict[str, Callable[[ModelRef], Any]] = {
    "AutoTokenizer": load_tokenizer,
    "AutoImageProcessor": load_image_processor,
    "AutoFeatureExtractor": load_feature_extractor,
    "AutoProcessor": load_composite_processor,
}


def _load(ref: ModelRef, auto_class: str, noun: str, **more: Any) -> Any:
    import transformers

    source = from_pretrained_arguments(ref)
    if ref.processor is not None:
        source = {"local_files_only": Path(ref.processor).is_dir(), "trust_remote_code": ref.trust_remote_code}
    try:
        return getattr(transformers, auto_class).from_pretrained(ref.processor or ref.name, **source, **more)
    except Exception as error:  # of the libraries: a torn file, a package that is missing, a model's own code
        raise _missing(ref, noun, error) from error


def _missing(ref: ModelRef, noun: str, error: Exception | None = None) -> ModelError:
    cause = "" if error is None else f" ({' '.join(str(error).split())[:160]})"
    return ModelError(
        f"{ref.label}: it has no {noun} that can be loaded. Name one in the study file: "
        f"models: [{{name: {ref.name}, processor: HUB_ID_OR_FOLDER}}].{cause}"
    )
