"""Loads candidate models once a process and copies them for each trial, with the head initialized from its seed."""

import copy
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpo.config.model_ref import ModelRef
from hpo.data.media.audio import MAX_SECONDS
from hpo.errors import ModelError
from hpo.tasks.base import Task
from hpo.tasks.task_data import TaskData
from hpo.training.models.compatibility import align_processor, check_new_weights
from hpo.training.models.hub import from_pretrained_arguments
from hpo.training.models.layers import LayerStack, find_stack, head_dropouts
from hpo.training.models.load_errors import explain_load_error
from hpo.training.models.processor import load_processor, load_tokenizer


@dataclass(frozen=True)
class Candidate:
    """A pre-trained model with the task's head as loaded: never trained itself, only copied (`build`)."""

    ref: ModelRef
    model: nn.Module
    processor: Any  # its tokenizer, image processor or feature extractor
    stack: LayerStack
    max_positions: int | None  # the most tokens its position embeddings allow; None: no limit
    new_weights: frozenset[str] = field(repr=False)  # names of parameters that the checkpoint lacks

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        return sum(p.numel() for p in self.model.parameters())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the architecture, its settings and the weights that the checkpoint holds."""
        config: Any = self.model.config
        settings = {k: v for k, v in config.to_dict().items() if k not in ("id2label", "label2id")}
        digest = hashlib.sha256(f"{type(self.model).__name__} {json.dumps(settings, default=str)}".encode())
        for name, tensor in self.model.state_dict().items():
            if name not in self.new_weights:
                digest.update(name.encode())
                digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def build(self, seed: int, dropout: float | None = None, head_dropout: float | None = None) -> nn.Module:
        """Return a float32 copy with its head initialized from `seed` (torch's global generator is seeded).

        `dropout` sets every dropout probability, `head_dropout` then those in the head; None keeps the model's.
        """
        model = copy.deepcopy(self.model)
        torch.manual_seed(seed)
        self._initialize_new_weights(model)
        if dropout is not None:
            set_dropout(model, dropout)
        if head_dropout is not None:
            for module in head_dropouts(model):
                module.p = head_dropout
        return model

    def _initialize_new_weights(self, model: nn.Module) -> None:
        """Initialize the weights that the checkpoint lacks, by the model's own rule, as `from_pretrained` does.

        `initialize_weights` skips what is flagged as initialized; `deepcopy` loses these flags of parameters.
        """
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            tensor._is_hf_initialized = name not in self.new_weights  # type: ignore[attr-defined]
        for prefix, module in model.named_modules():
            start = f"{prefix}." if prefix else ""
            if any(name.startswith(start) for name in self.new_weights):
                module._is_hf_initialized = False
        model.initialize_weights()  # type: ignore[operator]


def save_model(model: nn.Module, folder: Path) -> None:
    """Save a model in the format of `from_pretrained`, as safetensors; moves it to the CPU."""
    model.cpu().save_pretrained(folder)  # type: ignore[operator]


def set_dropout(model: nn.Module, p: float) -> None:
    """Set every dropout probability of a model: of modules, of attributes such as attention's, and of its config.

    Layer drop and stochastic depth are other techniques and are unchanged.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
        for name, value in vars(module).items():
            if _is_dropout(name, value):
                setattr(module, name, p)
        config = getattr(module, "config", None)
        for name, value in vars(config).items() if config is not None else ():
            if _is_dropout(name, value):
                setattr(config, name, p)


def _is_dropout(name: str, value: Any) -> bool:
    named = ("dropout" in name or name.endswith("pdrop")) and "layer" not in name and "path" not in name
    return named and isinstance(value, int | float) and not isinstance(value, bool)


# Config values to override: the key-value cache takes memory in training; SpecAugment masks and layer drop use random
# numbers whose state no checkpoint holds, in frozen layers too (the search parameter `augmentation` masks audio).
CONFIG_OVERRIDES: dict[str, Any] = {"use_cache": False, "apply_spec_augment": False, "layerdrop": 0.0}


class Candidates:
    """The study's candidate models in this process, with a head for its task and data, loaded on first use."""

    def __init__(self, refs: Mapping[str, ModelRef], task: Task, data: TaskData) -> None:
        self._refs = refs
        self._task = task
        self._data = data
        self._loaded: dict[str, Candidate] = {}

    def __getitem__(self, label: str) -> Candidate:
        """Return the candidate with this label. Raises `ModelError` where it cannot be loaded."""
        if label not in self._loaded:
            task, data = self._task, self._data
            self._loaded[label] = load_candidate(
                self._refs[label],
                task.auto_class,
                task.head_config(data),
                lambda ref: task.adapt_processor(load_processor(ref, task.processor_class), data),
                task.build_model,
            )
        return self._loaded[label]


def preload_imports() -> None:
    """Import early what loading the first model and metric imports: three seconds of a core."""
    import evaluate
    import transformers

    # Attribute access triggers the lazy imports.
    assert evaluate.Metric and transformers.modeling_utils.PreTrainedModel and transformers.AutoModel


def load_candidate(
    ref: ModelRef,
    auto_class: str,
    head: Mapping[str, Any],
    read_processor: Callable[[ModelRef], Any] = load_tokenizer,
    build_model: Callable[..., Any] | None = None,
) -> Candidate:
    """Load a model with a head for the task, in float32, and its processor. Raises `ModelError`.

    `build_model` is the task's own function; None: `from_pretrained` of the `transformers` class `auto_class`.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source = from_pretrained_arguments(ref)
    build_model = build_model or getattr(transformers, auto_class).from_pretrained
    try:
        model, info = build_model(
            ref.name,
            **source,
            **head,
            dtype=torch.float32,
            use_safetensors=None if ref.allow_pickle else True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # of the libraries, and of a model's own code
        raise explain_load_error(ref, auto_class, error) from error
    new = set(info["missing_keys"]) | {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    check_new_weights(ref, model, new)
    processor = read_processor(ref)
    align_processor(ref, model, processor)
    _adjust_config(model, processor)
    return Candidate(ref, model.eval(), processor, find_stack(model), _max_positions(model, processor), frozenset(new))


def _adjust_config(model: Any, processor: Any) -> None:
    """Set in place the config values that training needs and pre-trained models lack or set otherwise."""
    config = model.config
    if hasattr(processor, "pad_token_id"):
        # Decoders such as GPT-2 find each text's last token by it and reject batches without; several architectures
        # (Gemma 3, CodeGen) have no such attribute, or have it in the text part of their config only. RoBERTa-like
        # ones count positions from their own, which is not changed.
        for part in {id(part): part for part in (config, config.get_text_config())}.values():
            if getattr(part, "pad_token_id", None) is None or not _counted_positions(model):
                part.pad_token_id = processor.pad_token_id
    if getattr(config, "label_names", None) is not None:  # timm's name for the classes, saved with the model
        config.label_names = list(config.id2label.values())
    for setting, value in CONFIG_OVERRIDES.items():
        if getattr(config, setting, None):
            setattr(config, setting, value)


def _counted_positions(model: nn.Module) -> list[nn.Embedding]:
    """Return the position embeddings that count from the padding token's id on, as RoBERTa's do."""
    return [
        module
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None
    ]


def _max_positions(model: nn.Module, processor: Any) -> int | None:
    """Return the most tokens of an input: the positions less those that RoBERTa-like models reserve for padding."""
    stated = getattr(processor, "model_max_length", None)
    if stated is None:
        return None
    config = model.config
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    limit = limit if limit and limit > 0 else None  # XLNet's -1: no limit
    for table in _counted_positions(model):
        limit = table.num_embeddings - (table.padding_idx or 0) - 1
    if stated < 1_000_000:
        limit = min(limit, stated) if limit else stated
    return int(limit) if limit else None


def resolve_max_length(candidate: Candidate, wanted: int | None, max_seconds: float | None = None) -> int:
    """Return the most tokens of an input: the study's `max_length`, else the model's positions, at most 512.

    For audio it is the number of samples in `max_seconds`; for images, which are resized, 0. Batches are padded to
    their own longest input, so that a high limit costs nothing where texts are short. Raises `ModelError` where the
    study sets more than the model's positions.
    """
    rate = getattr(getattr(candidate.processor, "feature_extractor", candidate.processor), "sampling_rate", None)
    if rate is not None:
        return round((max_seconds or MAX_SECONDS) * rate)
    if not hasattr(candidate.processor, "model_max_length"):
        return 0
    limit = candidate.max_positions
    if wanted is not None and limit is not None and wanted > limit:
        raise ModelError(
            f"max_length: {wanted} is more than the {limit} positions of {candidate.ref.label}. "
            f"Set max_length to {limit} or less, or leave it out."
        )
    return wanted or min(limit or 512, 512)
