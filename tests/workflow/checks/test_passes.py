"""Before the search, one forward and backward pass of real rows per candidate: what fails costs that model only."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import hpo
from hpo.config.load import load_config
from hpo.errors import ModelError
from hpo.training.execution import Execution
from hpo.workflow.checks.passes import apply_passes
from hpo.workflow.context import StudyContext
from tests.small_models import save_bert


def context_of(study: dict[str, Any]) -> StudyContext:
    return StudyContext.create(load_config(study), Execution())


def break_pass(context: StudyContext, label: str) -> None:
    """Make the model named `label` raise in its forward pass of the longest row."""
    context.candidates[label].model.bert.embeddings.position_embeddings = torch.nn.Embedding(4, 16)


def test_pass_changes_no_model_and_no_random_state(study: dict[str, Any]) -> None:
    context = context_of(study)
    model = [context.candidates[label].model for label in context.config.labels][1]
    before, state = {key: t.clone() for key, t in model.state_dict().items()}, torch.random.get_rng_state()
    same, notes = apply_passes(context)
    assert same.config == context.config and notes == []
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_model_that_cannot_be_trained_is_dropped_and_named(study: dict[str, Any]) -> None:
    context = context_of(study)
    break_pass(context, "shallow")
    rest, (note,) = apply_passes(context)
    assert list(rest.config.labels) == ["deep"]
    assert note.startswith("shallow is dropped: text-classification: a forward and backward pass of training rows")
    assert "IndexError" in note
    break_pass(context, "deep")
    with pytest.raises(ModelError, match=r"(?s)shallow: .*IndexError.*deep: text-classification: .*IndexError"):
        apply_passes(context)


def test_weights_with_nan_cost_that_model(study: dict[str, Any], tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "nan", layers=1)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"nan: its weights hold NaN or infinity, in bert.encoder.layer.0.output.dense"
    ):
        apply_passes(context_of({**study, "models": [str(folder)]}))


def test_tokenizer_that_maps_every_text_to_unknown_raises(study: dict[str, Any], tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "upper", layers=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    definition = tokenizer.backend_tokenizer.to_str()
    for word in "good bad fine poor great awful the a film was very not".split():
        definition = definition.replace(f'"{word}"', f'"{word.upper()}"')
    backend = type(tokenizer.backend_tokenizer).from_str(definition)
    names = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{name}_token": getattr(tokenizer, f"{name}_token") for name in names}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    with pytest.raises(ModelError, match=r"upper: its tokenizer maps every text of the data to \[UNK\]"):
        apply_passes(context_of({**study, "models": [str(folder)]}))


def test_exception_in_a_models_pass_fails_its_trials_only(
    study: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.bert.modeling_bert import BertEncoder

    forward = BertEncoder.forward

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(self.layer) == 1 and self.training and torch.is_grad_enabled() and args[0].shape[0] > 2:
            raise RuntimeError("index out of range")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(BertEncoder, "forward", broken)
    found = hpo.run({**study, "rank": False, "confirm": {"top": 1, "seeds": 1}}, quiet=True)
    assert found.params["model"] == "deep"
    reasons = {t.user_attrs.get("failure") for t in found.study.trials if t.state.name == "FAIL"}
    assert len(reasons) == 1 and "shallow: text-classification: a forward or backward pass" in str(reasons)


def test_truncated_texts_are_counted_and_noted_with_the_data(study: dict[str, Any]) -> None:
    assert not any("truncated" in note for note in apply_passes(context_of(study))[0].data.notes)
    context, _ = apply_passes(context_of({**study, "max_length": 4}))
    notes = [note for note in context.data.notes if "truncated" in note]
    assert [note.partition(":")[0] for note in notes] == list(context.config.labels)
    assert "truncated to 4 tokens" in notes[0]
