"""Explains why a model could not be loaded, and what to do, as a `ModelError`."""

from difflib import get_close_matches
from pathlib import Path

from hpo.config.model_ref import ModelRef
from hpo.errors import ModelError
from hpo.training.models.hub import hub_is_unreachable


def explain_load_error(ref: ModelRef, auto_class: str, error: Exception) -> ModelError:
    """Return the error that explains why `from_pretrained` failed and what to do."""
    from huggingface_hub.errors import GatedRepoError

    text = str(error) or type(error).__name__
    if type(error).__name__ == "SafetensorError":  # of a torn file
        return ModelError(f"{ref.label}: its weights cannot be read: {error}. The file is damaged.")
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
            f"{ref.label}: this model includes its own code. If you trust it, allow it in the study file: "
            f"models: [{{name: {ref.name}, trust_remote_code: true}}]."
        )
    return _explain_folder(ref, text) if ref.is_local else _explain_hub(ref, text)


def _explain_folder(ref: ModelRef, text: str) -> ModelError:
    folder = Path(ref.name) / ref.subfolder
    if list(folder.glob("*.bin")) and not list(folder.glob("*.safetensors")):
        if ref.allow_pickle:
            return ModelError(f"{ref.label}: its pickled weights in {folder} cannot be read: {_first_line(text)}")
        return ModelError(
            f"{ref.label}: its weights are pickled (.bin), which can run code when loaded. Convert them to "
            f"safetensors, or allow them: models: [{{name: {ref.name}, allow_pickle: true}}]."
        )
    if not (folder / "config.json").is_file():
        return ModelError(f"{ref.label}: {folder} holds no config.json; is it a Hugging Face model folder?")
    return ModelError(f"{ref.label}: cannot be loaded from {folder}: {_first_line(text)}")


def _explain_hub(ref: ModelRef, text: str) -> ModelError:
    path = Path(ref.name)
    if path.is_absolute():  # written as a path, so that it is no name on the hub
        kind = "is a file" if path.exists() else "does not exist"
        beside = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
        near = get_close_matches(path.name, beside, n=2, cutoff=0.4)
        hint = f" Beside it: {', '.join(near)}." if near else ""
        return ModelError(f"{ref.label}: the folder {path} {kind}.{hint}")
    if hub_is_unreachable():
        near = get_close_matches(ref.name, _local_models(), n=2, cutoff=0.4)
        hint = f" Nearest here: {', '.join(near)}." if near else ""
        return ModelError(
            f"{ref.label}: no such folder ({path.absolute()}), not in the hub's cache, and the hub is unreachable "
            f"(offline).{hint}"
        )
    return ModelError(f"{ref.label}: the hub has no such model, or it lacks safetensors weights: {_first_line(text)}")


def _local_models() -> list[str]:
    """Return the names of models in folders below the current one and in the hub's cache."""
    from huggingface_hub import constants

    folders = [
        str(config.parent) for pattern in ("*", "*/*", "*/*/*") for config in Path().glob(f"{pattern}/config.json")
    ]
    cached = [
        p.name.removeprefix("models--").replace("--", "/") for p in Path(constants.HF_HUB_CACHE).glob("models--*")
    ]
    return folders + cached


def _first_line(text: str) -> str:
    return " ".join(text.strip().split())[:300]
