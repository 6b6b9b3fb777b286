"""Search over two tiny untrained language models that learn to answer chats about days of the week.

    python examples/chat.py [FOLDER]     # under a minute on one core, without hub or GPU

The loss covers the answers only. Chats are in the column `messages`; the tokenizer's chat template is applied, or a
plain one if it has none, as here. For your own data, run `hpo init DATA --task causal-lm` and `hpo run`.
"""

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import hpo

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
QUESTIONS = (
    "which day comes {way} {day} ?",
    "what day is {way} {day} ?",
    "tell me the day {way} {day} .",
    "say the day that comes {way} {day} .",
    "{day} is known : which day comes {way} it ?",
    "{day} is known : tell me the day {way} it .",
    "which one is {way} {day} ?",
    "what comes {way} {day} ?",
)
WORDS = (
    *DAYS,
    *"user assistant which what day comes is tell me the say that known it one before after . : ? \n".split(" "),
)
SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def write_chats(path: Path) -> Path:
    """Write every question about every day, in random order."""
    chats = []
    for index, day in enumerate(DAYS):
        for way, other in (("after", DAYS[(index + 1) % 7]), ("before", DAYS[index - 1])):
            for question in QUESTIONS:
                asked = {"role": "user", "content": question.format(way=way, day=day)}
                chats.append({"messages": [asked, {"role": "assistant", "content": f"it is {other} ."}]})
    random.shuffle(chats)
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    return path


def save_model(folder: Path, kind: str, **shape: Any) -> Path:
    """Save an untrained model of a few thousand weights, with a tokenizer of a few words."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    vocabulary = [*SPECIAL.values(), *WORDS]
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(vocabulary)}, unk_token="<unk>"))
    split = pre_tokenizers.Split(Regex(r"\w+|[^\w ]"), "removed", invert=True)
    words.pre_tokenizer = split
    PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL).save_pretrained(folder)
    config = AutoConfig.for_model(
        kind, vocab_size=len(vocabulary), pad_token_id=0, bos_token_id=None, eos_token_id=1, **shape
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def main(folder: Path) -> None:
    random.seed(0)
    gpt2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.1}
    llama = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    models = [
        save_model(folder / "gpt2", "gpt2", **gpt2),
        save_model(folder / "llama", "llama", **llama, max_position_embeddings=64, initializer_range=0.1),
    ]
    result = hpo.run(
        {
            "name": "days",
            "task": "causal-lm",
            "data": str(write_chats(folder / "chats.jsonl")),
            "models": [str(model) for model in models],
            "search_space": {
                "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
                "batch_size": 8,
                "epochs": 15,
                "peft": ["none", "lora"],
                "lora_r": {"low": 4, "high": 16, "when": {"peft": "lora"}},
            },
            "metric": "perplexity",
            "budget": {"max_trials": 4},
            "confirm": {"top": 1, "seeds": 1},
            "backend": "inline",
        }
    )
    print(result.winner.params["model"], {name: round(value, 2) for name, value in result.metrics.items()})
    for answer in result.predict(["which day comes after Friday ?", "tell me the day before Monday ."]):
        print(f"{answer['text']} → {answer['label']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
