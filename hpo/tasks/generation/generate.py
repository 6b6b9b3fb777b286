"""Having models write texts: how they are set to, and what they make of inputs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

# What of a model's own generation settings says how its tokens work. The rest (lengths, penalties, sampling) is about
# the data that it was made for.
KEPT = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens"),
)
COVERED = 0.99  # share of the training texts that is no longer than what a model may write: one outlier costs all


def end_of_text(tokenizer: Any) -> int | None:
    """The token that ends a text; None where the tokenizer has none."""
    found: int | None = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return found


def set_generation(model: Any, tokenizer: Any, lengths: NDArray[Any], num_beams: int, most: int | None = None) -> None:
    """Have `model.generate` write texts as long as those of `lengths` tokens that it learns, at most `most`."""
    from transformers import GenerationConfig

    own: dict[str, Any] = {name: getattr(model.generation_config, name, None) for name in KEPT}
    ends = own["eos_token_id"] if isinstance(own["eos_token_id"], list) else [own["eos_token_id"]]
    own["eos_token_id"] = list(dict.fromkeys(end for end in (*ends, end_of_text(tokenizer)) if end is not None))
    if len(own["eos_token_id"]) == 1:
        own["eos_token_id"] = own["eos_token_id"][0]
    if own["pad_token_id"] is None:
        own["pad_token_id"] = tokenizer.pad_token_id
    longest = int(np.ceil(np.quantile(lengths, COVERED)))
    model.generation_config = GenerationConfig(
        **{name: value for name, value in own.items() if value is not None},
        max_new_tokens=longest if most is None else min(longest, most),
        num_beams=num_beams,
        do_sample=False,
        use_cache=True,
    )


def generate(model: Any, inputs: "Mapping[str, torch.Tensor]", **settings: Any) -> NDArray[Any]:
    """The tokens that a model writes after padded inputs, [inputs, longest]; the inputs themselves are not among them.

    As its own generation settings say, but for those given.
    """
    import torch

    with torch.inference_mode():
        found = model.generate(**inputs, **settings)
    read = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    tokens: NDArray[Any] = found[:, read:].cpu().numpy()
    return tokens


def write_texts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    batch_size: int,
    padding_side: Literal["left", "right"],
    **settings: Any,
) -> list[str]:
    """What a model writes for each of `prompts` (tokens), as text, in their order; `settings` are `generate`'s."""
    model.eval()
    # Longest first: batches of like lengths hold little padding, and too large a batch shows at once.
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    written = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        inputs = tokenizer.pad(
            {"input_ids": [list(prompts[place]) for place in places]}, padding_side=padding_side, return_tensors="pt"
        )
        given = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
        for place, text in zip(places, decode(tokenizer, generate(model, given, **settings)), strict=True):
            written[place] = text
    return written


def decode(tokenizer: Any, tokens: Sequence[Sequence[int]] | NDArray[Any]) -> list[str]:
    """Tokens as texts, without special tokens and without white space around them."""
    return [text.strip() for text in tokenizer.batch_decode([list(row) for row in tokens], skip_special_tokens=True)]


def token_loss(logits: "torch.Tensor", labels: "torch.Tensor", label_smoothing: float) -> "torch.Tensor":
    """Cross entropy of tokens, summed: `logits` [inputs, tokens, words], `labels` [inputs, tokens], -100 left out."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), reduction="sum", label_smoothing=label_smoothing
    )
