"""Small models with random weights, built from config in a moment: for tests of everything but learning itself."""

from pathlib import Path

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"good bad fine poor great awful the a film was very not".split(),
)


def save_tokenizer(folder: Path, max_length: int = 64) -> None:
    """A word-level tokenizer of a dozen words, in the format that AutoTokenizer reads."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=max_length,
    )
    fast.save_pretrained(folder)


def save_bert(folder: Path, layers: int = 2, seed: int = 0) -> Path:
    """A BERT of a few thousand parameters with its tokenizer; returns its folder."""
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(seed)
    BertModel(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def write_reviews(folder: Path, train: int = 96, other: int = 32) -> Path:
    """A folder of train, validation and test csv files that a tiny model learns in an epoch or two."""
    import random

    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    seen: set[str] = set()
    for split, rows in {"train": train, "validation": other, "test": other}.items():
        lines = ["text,label"]
        while len(lines) <= rows:
            good = len(lines) % 2 == 0
            words = [rng.choice("the a film was very not".split()) for _ in range(rng.randint(3, 9))]
            words.insert(
                rng.randrange(len(words)), rng.choice(("good", "fine", "great") if good else ("bad", "poor", "awful"))
            )
            text = " ".join(words)
            if text not in seen:
                seen.add(text)
                lines.append(f"{text},{'positive' if good else 'negative'}")
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
    return folder
