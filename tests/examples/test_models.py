"""The quickstart's models are small, of several architectures, and load as any Hugging Face model."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

MODELS = sorted(
    path.parent for path in (Path(__file__).resolve().parents[2] / "examples" / "models").glob("*/config.json")
)


def test_models_differ_in_architecture_depth_and_width() -> None:
    configs = [json.loads((folder / "config.json").read_text()) for folder in MODELS]
    assert len(configs) == 4
    assert len({config["model_type"] for config in configs}) >= 3
    assert len({config.get("num_hidden_layers", config.get("n_layers")) for config in configs}) >= 3
    assert len({config.get("hidden_size", config.get("dim")) for config in configs}) >= 2


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_model_is_small_and_has_finite_logits(folder: Path) -> None:
    assert (folder / "model.safetensors").stat().st_size <= 3_000_000
    card = (folder / "README.md").read_text()
    assert "Apache-2.0" in card
    assert "all-MiniLM-L6-v2" in card
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    assert tokenizer.model_max_length == 256
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=8, dtype=torch.float32).eval()
    batch = tokenizer(["Sort the rows of a table.", "word " * 600], truncation=True, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == (2, 256)
    with torch.inference_mode():
        logits = model(**batch).logits
    assert logits.shape == (2, 8)
    assert logits.isfinite().all()


PARAPHRASES = [
    "Compute the gradient of the loss with respect to the weights.",
    "Backpropagate the error to get derivatives of all parameters.",
    "Open a connection to the database and execute a query.",
    "Run an SQL statement on the server inside a transaction.",
    "Find the shortest path between two nodes in a directed graph.",
    "Minimum distance route from a source vertex to a target vertex.",
    "Draw a bar chart with a title, a legend and two axes.",
    "Plot the histogram as a figure with colored bars.",
]


def nearest(encoder: torch.nn.Module, batch: Mapping[str, torch.Tensor]) -> list[int]:
    """Return the index of the text nearest to each, by the cosine of the centered first token vectors."""
    with torch.inference_mode():
        first = encoder.eval()(**batch).last_hidden_state[:, 0]
    directions = torch.nn.functional.normalize(first - first.mean(0), dim=-1)
    return (directions @ directions.T - 2 * torch.eye(len(first))).argmax(-1).tolist()


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_nearest_text_is_the_paraphrase_unlike_with_random_weights(folder: Path) -> None:
    batch = AutoTokenizer.from_pretrained(folder)(PARAPHRASES, padding=True, return_tensors="pt")
    pretrained = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).base_model
    torch.manual_seed(0)
    random = AutoModel.from_config(AutoConfig.from_pretrained(folder, dtype=torch.float32))
    assert nearest(pretrained, batch) == [1, 0, 3, 2, 5, 4, 7, 6]
    assert nearest(random, batch) != [1, 0, 3, 2, 5, 4, 7, 6]
