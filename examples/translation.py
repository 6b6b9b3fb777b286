"""Search over two tiny untrained models that learn to translate dates: `Thursday, 7 March 2024` → `2024-03-07`.

    python examples/translation.py [FOLDER]     # under a minute on one core, without hub or GPU

For your own data, run `hpo init DATA --task translation` and `hpo run`.
"""

import datetime
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import hpo

CHARACTERS = "-, 0123456789ADFJMNOSTWabcdefghilmnoprstuvyz"
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "?"}


def write_dates(path: Path, rows: int) -> Path:
    """Write random dates in words, and in ISO format as targets."""
    days = [datetime.date(1900, 1, 1) + datetime.timedelta(random.randrange(60_000)) for _ in range(rows)]
    pairs = [{"source": f"{day:%A}, {day.day} {day:%B} {day.year}", "target": day.isoformat()} for day in set(days)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def save_model(folder: Path, kind: str, **shape: Any) -> Path:
    """Save an untrained model of a few thousand weights, with a tokenizer of single characters."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    vocabulary = [*SPECIAL.values(), *CHARACTERS]
    characters = Tokenizer(models.WordLevel({character: n for n, character in enumerate(vocabulary)}, unk_token="?"))
    characters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    characters.decoder = decoders.Fuse()
    characters.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    PreTrainedTokenizerFast(tokenizer_object=characters, **SPECIAL).save_pretrained(folder)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
    config = AutoConfig.for_model(kind, vocab_size=len(vocabulary), **ids, **shape)
    torch.manual_seed(0)
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    return folder


def main(folder: Path) -> None:
    random.seed(0)
    bart = {"encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    models = [
        save_model(folder / "shallow", "bart", d_model=64, encoder_layers=1, decoder_layers=1, init_std=0.1, **bart),
        save_model(folder / "deep", "bart", d_model=64, encoder_layers=2, decoder_layers=1, init_std=0.1, **bart),
    ]
    result = hpo.run(
        {
            "name": "dates",
            "task": "translation",
            "data": str(write_dates(folder / "dates.jsonl", 1000)),
            "models": [str(model) for model in models],
            "search_space": {
                "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
                "batch_size": 16,
                "epochs": 9,
                "frozen_layers": {"share": [0, 1]},
            },
            "metric": "chrf",
            "generation": {"rows": 50, "num_beams": 2},
            "budget": {"max_trials": 3},
            "confirm": {"top": 1, "seeds": 1},
            "backend": "inline",
        }
    )
    print(result.winner.params["model"], {name: round(value, 2) for name, value in result.metrics.items()})
    for answer in result.predict(["Thursday, 7 March 2024", "Monday, 21 July 1969"]):
        print(f"{answer['text']} → {answer['label']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()))
