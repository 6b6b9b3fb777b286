"""Candidate models, kept warm: read from disk once a process, copied for each trial, the head drawn from its seed."""

import copy
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpo.config.model_ref import ModelRef
from hpo.data.media.audio import MAX_SECONDS
from hpo.errors import ModelError
from hpo.tasks.base import Task
from hpo.tasks.task_data import TaskData
from hpo.training.models.hub import from_pretrained_arguments, hub_is_unreachable
from hpo.training.models.layers import LayerStack, find_stack, head_dropouts
from hpo.training.models.processor import load_processor, load_tokenizer


@dataclass(frozen=True)
class Candidate:
    """A pre-trained model with the task's head, as read from disk: never trained itself, only copied."""

    ref: ModelRef
    model: nn.Module
    processor: Any  # what makes its inputs: a tokenizer, an image processor, a feature extractor
    stack: LayerStack
    max_positions: int | None  # tokens that its position embeddings reach; None: no limit
    new_weights: frozenset[str] = field(repr=False)  # names of parameters that the checkpoint did not hold

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of what was read from disk: the architecture, its settings and its weights."""
        config: Any = self.model.config
        settings = {k: v for k, v in config.to_dict().items() if k not in ("id2label", "label2id")}
        digest = hashlib.sha256(f"{type(self.model).__name__} {json.dumps(settings, default=str)}".encode())
        for name, tensor in self.model.state_dict().items():
            if name not in self.new_weights:
                digest.update(name.encode())
                digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def build(self, seed: int, dropout: float | None = None, head_dropout: float | None = None) -> nn.Module:
        """A fresh float32 copy whose head is initialised from `seed`.

        With `dropout` everywhere if it is given, and `head_dropout` in the head.
        """
        model = copy.deepcopy(self.model)
        torch.manual_seed(seed)
        self._draw_new_weights(model)
        if dropout is not None:
            set_dropout(model, dropout)
        if head_dropout is not None:
            for module in head_dropouts(model):
                module.p = head_dropout
        return model

    def _draw_new_weights(self, model: nn.Module) -> None:
        """Initialise what the checkpoint lacked, by the model's own rule and in the order of `from_pretrained`.

        Its flags say what is left to initialise; a copy of a parameter loses them.
        """
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            tensor._is_hf_initialized = name not in self.new_weights  # type: ignore[attr-defined]
        for prefix, module in model.named_modules():
            start = f"{prefix}." if prefix else ""
            if any(name.startswith(start) for name in self.new_weights):
                module._is_hf_initialized = False
        model.initialize_weights()  # type: ignore[operator]


def save_model(model: nn.Module, folder: Path) -> None:
    """Write a model as safetensors with its config, as `from_pretrained` reads it."""
    model.cpu().save_pretrained(folder)  # type: ignore[operator]


def set_dropout(model: nn.Module, p: float) -> None:
    """Set every dropout probability of a model: modules, attention's own floats, and its config.

    Layer drop and stochastic depth are another technique and stay.
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


# Settings that speech and text models come with: keys and values of all layers, kept for generating text; masks and
# skipped layers from random numbers that no checkpoint holds, also among frozen layers (`augmentation` masks sound).
QUIET: dict[str, Any] = {"use_cache": False, "apply_spec_augment": False, "layerdrop": 0.0}


class Candidates:
    """The study's candidate models in this process, with a head for its task and data, read on first use."""

    def __init__(self, refs: Mapping[str, ModelRef], task: Task, data: TaskData) -> None:
        self._refs = refs
        self._task = task
        self._data = data
        self._loaded: dict[str, Candidate] = {}

    def __getitem__(self, label: str) -> Candidate:
        """The candidate called `label`. Raises `ModelError` that says what to do."""
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
    """Import what reading the first model and the first score would import then: three seconds of a core."""
    import evaluate
    import transformers

    # Their attributes are imported at the first look.
    assert evaluate.Metric and transformers.modeling_utils.PreTrainedModel and transformers.AutoModel


def load_candidate(
    ref: ModelRef,
    auto_class: str,
    head: Mapping[str, Any],
    read_processor: Callable[[ModelRef], Any] = load_tokenizer,
    build_model: Callable[..., Any] | None = None,
) -> Candidate:
    """Read a model with a head for the task, in float32, and what makes its inputs. Raises `ModelError`.

    `build_model` is the task's own; None: `from_pretrained` of the `transformers` class `auto_class`.
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
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise _explain(ref, auto_class, error) from error
    except Exception as error:
        # safetensors raises its own SafetensorError, outside any tree, for a torn file.
        if type(error).__name__ == "SafetensorError":
            raise ModelError(f"{ref.label}: its weights cannot be read ({error}); the file is damaged.") from error
        raise
    new = set(info["missing_keys"]) | {key[0] if isinstance(key, tuple) else key for key in info["mismatched_keys"]}
    processor = read_processor(ref)
    if hasattr(processor, "pad_token_id") and model.config.pad_token_id is None:
        # Decoders such as GPT-2 find each text's last token by it, and refuse batches without.
        model.config.pad_token_id = processor.pad_token_id
    if getattr(model.config, "label_names", None) is not None:  # timm's: what is saved of the classes
        model.config.label_names = list(model.config.id2label.values())
    for setting, value in QUIET.items():
        if getattr(model.config, setting, None):
            setattr(model.config, setting, value)
    return Candidate(ref, model.eval(), processor, find_stack(model), _max_positions(model, processor), frozenset(new))


def _explain(ref: ModelRef, auto_class: str, error: Exception) -> ModelError:
    from huggingface_hub.errors import GatedRepoError

    text = str(error)
    if isinstance(error, ImportError):
        if "timm" in text:
            return ModelError(
                f"{ref.label}: a model of timm needs packages that are not installed, torchvision among them: "
                "pip install 'hpo-finetune[timm]'."
            )
        return ModelError(f"{ref.label}: it needs a package that is not installed: {' '.join(text.split())[:200]}")
    if isinstance(error.__cause__, GatedRepoError):
        return ModelError(
            f"{ref.label}: this model is gated. Ask for access on its page (huggingface.co/{ref.name}), "
            "then run `hf auth login`."
        )
    if "Unrecognized configuration class" in text:
        return ModelError(f"{ref.label}: its architecture has no head for this task ({auto_class} is needed).")
    if "trust_remote_code" in text:
        return ModelError(
            f"{ref.label}: this model brings code of its own. If you trust it, say so in the study file: "
            f"models: [{{name: {ref.name}, trust_remote_code: true}}]."
        )
    if ref.is_local:
        folder = Path(ref.name) / ref.subfolder
        if list(folder.glob("*.bin")) and not list(folder.glob("*.safetensors")):
            return ModelError(
                f"{ref.label}: its weights are pickled (.bin), which can run code when loaded. Convert them to "
                f"safetensors, or allow them: models: [{{name: {ref.name}, allow_pickle: true}}]."
            )
        if not (folder / "config.json").is_file():
            return ModelError(f"{ref.label}: {folder} holds no config.json; is it a Hugging Face model folder?")
        return ModelError(f"{ref.label}: cannot be loaded from {folder}: {text.splitlines()[0]}")
    if hub_is_unreachable():
        near = get_close_matches(ref.name, _local_models(), n=2, cutoff=0.4)
        hint = f" Nearest here: {', '.join(near)}." if near else ""
        return ModelError(
            f"{ref.label}: no such folder, not in the hub's cache, and the hub is out of reach (offline).{hint}"
        )
    return ModelError(
        f"{ref.label}: the hub has no such model, or it lacks safetensors weights: {text.splitlines()[0]}"
    )


def _local_models() -> list[str]:
    """Folders below the current one that hold a model, and models in the hub's cache, as they would be named."""
    from huggingface_hub import constants

    folders = [
        str(config.parent) for pattern in ("*", "*/*", "*/*/*") for config in Path().glob(f"{pattern}/config.json")
    ]
    cached = [
        p.name.removeprefix("models--").replace("--", "/") for p in Path(constants.HF_HUB_CACHE).glob("models--*")
    ]
    return folders + cached


def _max_positions(model: nn.Module, processor: Any) -> int | None:
    """Tokens the model can take: its position table less the rows that RoBERTa-like models keep for padding."""
    stated = getattr(processor, "model_max_length", None)
    if stated is None:
        return None
    config = model.config
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx is not None:
            limit = module.num_embeddings - module.padding_idx - 1
    if stated < 1_000_000:
        limit = min(limit, stated) if limit else stated
    return int(limit) if limit else None


def resolve_max_length(candidate: Candidate, wanted: int | None, max_seconds: float | None = None) -> int:
    """Tokens per example: the study's `max_length`, else the model's positions, at most 512.

    Of sound it is samples, by `max_seconds`; images, which are resized, have no such limit (0).
    Batches are padded to their own longest example, so that a generous limit costs nothing where texts are short.
    Raises `ModelError` when the study asks for more than the model's positions.
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
