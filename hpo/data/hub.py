"""Datasets of the Hugging Face hub, downloaded or in its cache."""

from collections.abc import Iterable
from pathlib import Path

from datasets import load_dataset

from hpo.config.study import DataConfig
from hpo.data.formats.split_names import SPLITS
from hpo.data.local import nearest_file
from hpo.data.splits.raw import RawSplits
from hpo.errors import DataError, did_you_mean, enumerated


def load_hub(config: DataConfig) -> RawSplits:
    """Download a hub dataset, or read it from the cache."""
    from huggingface_hub import constants

    where = f"data.path: '{config.path}' is not a file or folder here ({Path(config.path).absolute()})"
    nearest = nearest_file(Path(config.path))
    if not constants.HF_HUB_OFFLINE:
        _check_on_hub(config, where, nearest)
    try:
        found = load_dataset(config.path, name=config.name, revision=config.revision)
    except Exception as error:  # the reader of any dataset may raise anything
        offline = " The hub is disabled (HF_HUB_OFFLINE=1)." if constants.HF_HUB_OFFLINE else ""
        raise DataError(f"{where}, nor a hub dataset in the cache: {_first_line(error)}{offline}{nearest}") from error
    chosen = {split: _hub_split(config, split, list(found)) for split in SPLITS}
    if chosen["train"] is None:
        raise DataError(
            f"{config.path}: the hub dataset has no split 'train' ({', '.join(found)}): name one as `data.train`."
        )
    used = {split: name for split, name in chosen.items() if name is not None}
    rows = {split: found[name] for split, name in used.items()}
    origins = {split: f"{config.path}[{name}]" for split, name in used.items()}
    return RawSplits(rows["train"], rows.get("validation"), rows.get("test"), origins)


def _check_on_hub(config: DataConfig, where: str, nearest: str) -> None:
    """Request the dataset's metadata with a timeout of 5 s: a typo or an unreachable hub fails fast."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        HfApi().dataset_info(config.path, revision=config.revision, timeout=5)
    except RepositoryNotFoundError:
        raise DataError(
            f"{where}, and the Hugging Face hub has no dataset of that name that you can access: a private or gated "
            f"one needs `hf auth login`.{nearest}"
        ) from None
    except HfHubHTTPError as error:
        raise DataError(f"{where}, and the Hugging Face hub responds: {_first_line(error)}{nearest}") from error
    except Exception as error:  # the hub's client also raises the exceptions of its HTTP library
        raise DataError(
            f"{where}, and the Hugging Face hub is unreachable: {_first_line(error)}{nearest} With "
            "HF_HUB_OFFLINE=1 a dataset downloaded before is used."
        ) from error


def _hub_split(config: DataConfig, split: str, known: Iterable[str]) -> str | None:
    named: str | None = getattr(config, split)
    known = list(known)
    if named is not None and named not in known:
        raise DataError(
            f"data.{split}: {config.path} has no split '{named}'.{did_you_mean(named, known)} Splits: "
            f"{enumerated(known)}."
        )
    return named or next((name for name in SPLITS[split] if name in known), None)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."
