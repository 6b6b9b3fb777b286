"""The layer stack and the frozen parameters of each supported architecture."""

import re
from collections.abc import Callable

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from hpo.config.trial_params import TrialParams
from hpo.errors import ModelError
from hpo.training.models.candidate import Candidate
from hpo.training.models.layers import (
    find_depths,
    find_heads,
    find_stack,
    freeze,
    hidden_state,
    layer_parts,
    stack_items,
    train_mode,
)
from hpo.training.models.lora import _matrices
from tests.small_models import ARCHITECTURES, AUDIO, SIDE, VISION

PATHS = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "electra": "electra.encoder.layer",
    "deberta-v2": "deberta.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "modernbert": "model.layers",
    "llama": "model.layers",
    "gpt2": "transformer.h",
    "albert": "albert.encoder.albert_layer_groups",
    "t5": "transformer.encoder.block",
    "bart": "model.encoder.layers",
}
# The frozen parameters besides the layers' own: all that their output depends on.
BELOW = {
    "bert": ("bert.embeddings.",),
    "roberta": ("roberta.embeddings.",),
    "electra": ("electra.embeddings.", "electra.embeddings_project."),
    "deberta-v2": ("deberta.embeddings.", "deberta.encoder.rel_embeddings.", "deberta.encoder.LayerNorm."),
    "distilbert": ("distilbert.embeddings.",),
    "modernbert": ("model.embeddings.",),
    "llama": ("model.embed_tokens.",),
    "gpt2": ("transformer.wte.", "transformer.wpe.", "transformer.drop."),
    "albert": ("albert.embeddings.", "albert.encoder.embedding_hidden_mapping_in."),
    "t5": ("transformer.shared.", "transformer.encoder.embed_tokens."),
    "bart": (
        "model.shared.",
        "model.encoder.embed_tokens.",
        "model.encoder.embed_positions.",
        "model.encoder.layernorm_embedding.",
    ),
}
EXAMPLE = {"input_ids": torch.tensor([[2, 6, 7, 8, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
QUICK = ("bert", "deberta-v2", "bart")  # standard; positions and a convolution after the stack; two stacks
MATRIX = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]


@pytest.mark.parametrize("name", MATRIX)
def test_stack_and_frozen_parameters(name: str, candidate: Callable[..., Candidate]) -> None:
    found = candidate(name)
    assert found.stack.path == PATHS[name]
    assert found.stack.count == (1 if name == "albert" else 2)
    for count in range(found.stack.count + 1):
        model = found.build(0)
        frozen = freeze(model, found.stack, count, EXAMPLE)
        below = BELOW[name] if count else ()
        if name == "deberta-v2" and count == 2:
            below += ("deberta.encoder.conv.",)  # it is applied between the first and the second layer
        expected = (*(f"{PATHS[name]}.{i}." for i in range(count)), *below)
        for parameter, tensor in model.named_parameters():
            assert tensor.requires_grad is not parameter.startswith(expected), (count, parameter)
        train_mode(model, frozen)
        for path, module in model.named_modules():
            assert module.training is not f"{path}.".startswith(expected), (count, path)


@pytest.mark.parametrize("name", MATRIX)
def test_output_of_frozen_layers_does_not_change_in_training(name: str, candidate: Callable[..., Candidate]) -> None:
    found = candidate(name)
    model = found.build(0)
    frozen = freeze(model, found.stack, found.stack.count, EXAMPLE)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    outputs: list[torch.Tensor] = []
    top = stack_items(model, found.stack)[-1]
    top.register_forward_hook(lambda module, args, output: outputs.append(hidden_state(output).detach().clone()))
    for _ in range(3):
        model.eval()
        model(**EXAMPLE)
        train_mode(model, frozen)
        model(**EXAMPLE, labels=torch.tensor([1])).loss.backward()
        optimizer.step()
    assert all(torch.equal(outputs[0], later) for later in outputs[2::2])


# Vision and audio: path of the stack, its layers, frozen with the first one. In hierarchical models layers are stages.
OTHERS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "vit": ("vit.layers", 2, ("vit.embeddings.",)),
    "swin": ("swin.encoder.layers", 2, ("swin.embeddings.",)),
    "convnext": ("convnext.encoder.stages", 2, ("convnext.embeddings.",)),
    "resnet": ("resnet.encoder.stages", 2, ("resnet.embedder.",)),
    "mobilenet_v2": ("mobilenet_v2.layer", 16, ("mobilenet_v2.conv_stem.",)),
    "wav2vec2": (
        "wav2vec2.encoder.layers",
        2,
        (
            "wav2vec2.feature_extractor.",
            "wav2vec2.feature_projection.",
            "wav2vec2.encoder.pos_conv_embed.",
            "wav2vec2.encoder.layer_norm.",  # registered after the stack, used before it
        ),
    ),
    "whisper": ("encoder.layers", 2, ("encoder.conv1.", "encoder.conv2.", "encoder.embed_positions.")),
    "audio-spectrogram-transformer": (
        "audio_spectrogram_transformer.layers",
        2,
        ("audio_spectrogram_transformer.embeddings.",),
    ),
}
INPUTS = {
    "wav2vec2": {"input_values": torch.rand(2, 2000)},
    "whisper": {"input_features": torch.rand(2, 16, 100)},
    "audio-spectrogram-transformer": {"input_values": torch.rand(2, 64, 16)},
}


@pytest.mark.parametrize(
    "name", [n if n in ("resnet", "whisper") else pytest.param(n, marks=pytest.mark.slow) for n in OTHERS]
)
def test_stack_and_frozen_parameters_of_vision_and_audio(name: str) -> None:
    import transformers

    path, count, below = OTHERS[name]
    config = transformers.AutoConfig.for_model(name, **(VISION | AUDIO)[name])
    head = "ImageClassification" if name in VISION else "AudioClassification"
    model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
    stack = find_stack(model)
    assert (stack.path, stack.count) == (path, count)
    frozen = freeze(model, stack, 1, INPUTS.get(name, {"pixel_values": torch.rand(2, 3, SIDE, SIDE)}))
    for parameter, tensor in model.named_parameters():
        assert tensor.requires_grad is not parameter.startswith((f"{path}.0.", *below)), parameter
    train_mode(model, frozen)
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert bool(norms) is (name in ("resnet", "mobilenet_v2"))
    for norm_name, norm in norms:  # the statistics of frozen layers do not change either
        assert norm.training is not norm_name.startswith((f"{path}.0.", *below)), norm_name


def test_albert_has_one_layer_that_is_applied_repeatedly(candidate: Callable[..., Candidate]) -> None:
    """Freezing its one layer freezes all applications of it; a frozen share is rounded to 0 or 1 layers."""
    found = candidate("albert", 4)
    assert found.model.config.num_hidden_layers == 4 and found.stack.count == 1
    shares = [TrialParams(model="a", frozen_share=share).resolve_frozen_layers(1) for share in (0, 0.4, 0.5, 1)]
    assert shares == [0, 0, 1, 1]
    model = found.build(0)
    freeze(model, found.stack, 1, EXAMPLE)
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad and "pooler" not in name}
    assert trained == {"classifier"}


def test_freezing_too_many_layers_raises_model_error(candidate: Callable[..., Candidate]) -> None:
    found = candidate()
    with pytest.raises(ModelError, match="3 is more than the 2 layers of BertForSequenceClassification"):
        freeze(found.build(0), found.stack, 3, EXAMPLE)


def test_model_without_layer_stack_raises_model_error() -> None:
    with pytest.raises(ModelError, match="Linear has no stack of layers"):
        find_stack(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("deberta-v2", "SequenceClassification", ["pooler", "classifier"]),
        ("bart", "SequenceClassification", ["classification_head"]),
        ("t5", "TokenClassification", ["classifier"]),
        ("t5", "Seq2SeqLM", []),  # tied to the embeddings; the decoder is part of the body
        ("gpt2", "CausalLM", []),
        ("llama", "CausalLM", ["lm_head"]),
    ],
)
def test_heads_are_the_modules_outside_the_body(name: str, head: str, expected: list[str]) -> None:
    import transformers

    config = transformers.AutoConfig.for_model(name, vocab_size=16, pad_token_id=0, **ARCHITECTURES[name])
    assert find_heads(getattr(transformers, f"AutoModelFor{head}").from_config(config)) == expected


@pytest.mark.parametrize("name", ["flaubert", "xlm"])
def test_layers_whose_parts_are_in_several_lists_are_frozen_and_adapted_as_layers(name: str) -> None:
    settings = {"vocab_size": 50, "emb_dim": 16, "n_layers": 4, "n_heads": 2, "max_position_embeddings": 64}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(name, **settings))
    stack = find_stack(model)
    assert stack.count == 4 and len(layer_parts(model, stack)[0]) == 4
    assert len([target for target, _ in _matrices(model, stack, "attention")]) == 4 * 4
    depths = find_depths(model, stack, EXAMPLE)
    freeze(model, stack, 1, EXAMPLE)
    for path, parameter in model.named_parameters():
        layer = re.search(r"\.(\d)\.", path)
        below = "embeddings" in path or "layer_norm_emb" in path or (layer and layer[1] == "0")
        assert parameter.requires_grad == (not below), path
        assert depths[id(parameter)] == (int(layer[1]) + 1 if layer else 0 if below else 5), path
