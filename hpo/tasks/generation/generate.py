"""Text generation: a model's generation settings, generated tokens, and the loss of tokens."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hpo.tasks.inference import Side, pad_batch, run_inference

if TYPE_CHECKING:
    import torch

# The generation settings of a pretrained model that depend on its tokens. The others (lengths, penalties, sampling)
# depend on its data.
KEPT = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"),
)
COVERED = 0.99  # fraction of training texts within the maximum length: one outlier would make every batch slow


def end_of_text(tokenizer: Any) -> int | None:
    """Return the end-of-text token; None where the tokenizer has none."""
    found: int | None = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return found


def set_generation(model: Any, tokenizer: Any, lengths: NDArray[Any], num_beams: int, most: int | None = None) -> None:
    """Configure generation: texts as long as the training targets (`lengths`, in tokens), at most `most` tokens."""
    from transformers import GenerationConfig

    own: dict[str, Any] = {name: getattr(model.generation_config, name, None) for name in KEPT}
    ends = own["eos_token_id"] if isinstance(own["eos_token_id"], list) else [own["eos_token_id"]]
    own["eos_token_id"] = list(dict.fromkeys(end for end in (*ends, end_of_text(tokenizer)) if end is not None))
    if len(own["eos_token_id"]) == 1:
        own["eos_token_id"] = own["eos_token_id"][0]
    own["pad_token_id"] = tokenizer.pad_token_id  # fills finished texts of a batch; decoding skips this one
    longest = int(np.ceil(np.quantile(lengths, COVERED)))
    model.generation_config = GenerationConfig(
        **{name: value for name, value in own.items() if value is not None},
        max_new_tokens=longest if most is None else min(longest, most),
        num_beams=num_beams,
        do_sample=False,
        use_cache=True,
    )


def generate(model: Any, inputs: "Mapping[str, torch.Tensor]", **settings: Any) -> NDArray[Any]:
    """Return the tokens that a model generates for padded inputs, [inputs, longest], without the inputs.

    `settings` override the model's generation config.
    """
    import torch

    with torch.inference_mode():
        output = model.generate(**inputs, **settings)
    prompt = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    tokens: NDArray[Any] = output[:, prompt:].cpu().numpy()
    return tokens


def write_texts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    padding_side: Side,
    **settings: Any,
) -> list[str]:
    """Return the text that a model generates for each of `prompts` (tokens), in order; `settings` as in `generate`."""

    def collate(indices: list[int]) -> "Mapping[str, torch.Tensor]":
        tokens = [np.asarray(prompts[index], np.int64) for index in indices]
        return pad_batch({"input_ids": tokens}, {"input_ids": tokenizer.pad_token_id}, padding_side)

    def forward(batch: "Mapping[str, torch.Tensor]", indices: list[int]) -> list[str]:
        return decode(tokenizer, generate(model, batch, **settings))

    return run_inference(model, [len(prompt) for prompt in prompts], collate, forward, batch_size)


def decode(tokenizer: Any, tokens: Sequence[Sequence[int]] | NDArray[Any]) -> list[str]:
    """Return tokens as texts, without special tokens and surrounding white space."""
    return [text.strip() for text in tokenizer.batch_decode([list(row) for row in tokens], skip_special_tokens=True)]


def token_loss(logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
    """Return the summed cross entropy, given `logits` [inputs, tokens, vocabulary] and `labels` [inputs, tokens].

    Labels of -100 are ignored.
    """
    from torch.nn.functional import cross_entropy

    return cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), reduction="sum", label_smoothing=label_smoothing
    )
