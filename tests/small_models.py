"""Small models with random weights, built from a config in a moment: for tests that do not depend on learning."""

from pathlib import Path
from typing import Any

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"good bad fine poor great awful the a film was very not".split(),
)


def save_tokenizer(folder: Path, max_length: int = 64) -> None:
    """Save a word-level tokenizer of `WORDS` in the format of AutoTokenizer."""
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


# The settings of a small model by architecture.
BERT_LIKE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
LLAMA_LIKE = {**BERT_LIKE, "num_key_value_heads": 2}
T5_LIKE = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
BART_LIKE = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
DEBERTA_LIKE = {
    "type_vocab_size": 0,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "conv_kernel_size": 3,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": BERT_LIKE,
    "roberta": {**BERT_LIKE, "max_position_embeddings": 66},
    "electra": {**BERT_LIKE, "embedding_size": 8},
    "deberta-v2": {**BERT_LIKE, **DEBERTA_LIKE},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64},
    "modernbert": BERT_LIKE,
    "llama": LLAMA_LIKE,
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "albert": {**BERT_LIKE, "embedding_size": 8},
    "t5": {**T5_LIKE, "decoder_start_token_id": 0},
    "bart": {**BART_LIKE, "decoder_start_token_id": 2, "forced_eos_token_id": None},
}
SIDE = 16  # of an image, in pixels
VISION: dict[str, dict[str, Any]] = {
    "vit": {**BERT_LIKE, "image_size": SIDE, "patch_size": 4},
    "swin": {
        "image_size": SIDE,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [1, 1],
        "num_heads": [1, 2],
        "window_size": 4,
    },
    "convnext": {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1], "patch_size": 2},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "mobilenet_v2": {"image_size": SIDE, "depth_multiplier": 0.25, "min_depth": 4},
}
RATE = 2_000  # sampling rate of the audio models, in Hz
WAVEFORM = {
    **BERT_LIKE,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 4),
    "conv_stride": (10, 4),
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "conv_bias": True,
}
AUDIO: dict[str, dict[str, Any]] = {
    "wav2vec2": WAVEFORM,
    "hubert": WAVEFORM,
    "whisper": {**BART_LIKE, "max_source_positions": 50, "num_mel_bins": 16, "classifier_proj_size": 16},
    "audio-spectrogram-transformer": {**BERT_LIKE, "max_length": 64, "num_mel_bins": 16, "patch_size": 8}
    | {"frequency_stride": 8, "time_stride": 8},
}
LAYERS_KEY = {"distilbert": "n_layers", "gpt2": "n_layer", "t5": "num_layers", "bart": "encoder_layers"}


def save_model(folder: Path, architecture: str, layers: int = 2, seed: int = 0, **settings: Any) -> Path:
    """Save a model without head, of a few thousand random parameters, with its processor; return its folder."""
    import torch
    from transformers import AutoConfig, AutoModel

    if architecture in VISION or architecture in AUDIO:
        torch.manual_seed(seed)
        depth_key = {"vit": "num_hidden_layers", "whisper": "encoder_layers"}.get(architecture)
        depth = {depth_key: layers} if depth_key else {}
        shape = {**(VISION | AUDIO)[architecture], **depth, **settings}
        config = AutoConfig.for_model(architecture, **shape)
        AutoModel.from_config(config).save_pretrained(folder)
        (save_image_processor if architecture in VISION else save_feature_extractor)(folder, architecture)
        return folder
    special = {**SPECIAL, "pad_token_id": 1} if architecture == "roberta" else SPECIAL
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(WORDS),
        **{
            **special,
            **ARCHITECTURES[architecture],
            LAYERS_KEY.get(architecture, "num_hidden_layers"): layers,
            **settings,
        },
    )
    torch.manual_seed(seed)
    AutoModel.from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_feature_extractor(folder: Path, architecture: str = "wav2vec2") -> None:
    """Save the feature extractor of a small audio model, for audio at 2 kHz (Whisper and AST: 16 kHz)."""
    import transformers

    if architecture == "whisper":
        extractor: Any = transformers.WhisperFeatureExtractor(16, 16_000, chunk_length=1)
    elif architecture == "audio-spectrogram-transformer":
        extractor = transformers.ASTFeatureExtractor(sampling_rate=16_000, num_mel_bins=16, max_length=64)
    else:
        extractor = transformers.Wav2Vec2FeatureExtractor(1, RATE, return_attention_mask=True)
    extractor.save_pretrained(folder)


def save_image_processor(folder: Path, architecture: str = "vit") -> None:
    """Save an image processor that resizes to 16 × 16 pixels and normalizes."""
    from transformers import ViTImageProcessorPil

    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def save_bert(folder: Path, layers: int = 2, seed: int = 0) -> Path:
    """Save a BERT of a few thousand parameters with its tokenizer; return its folder."""
    return save_model(folder, "bert", layers, seed)


def write_reviews(folder: Path, train: int = 96, other: int = 32) -> Path:
    """Write train, validation and test CSV files that a small model learns in an epoch or two; return the folder."""
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


REMOTE_CONFIG = """
from transformers import PreTrainedConfig

class TinyConfig(PreTrainedConfig):
    model_type = "tiny-remote"

    def __init__(self, vocab_size=17, width=16, pad_token_id=0, **more):
        self.vocab_size, self.width = vocab_size, width
        super().__init__(**more)
        self.pad_token_id = pad_token_id
"""
REMOTE_MODEL = """
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from .configuration_tiny import TinyConfig

class TinyModel(PreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = "body"

    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList([nn.Linear(config.width, config.width)])
        self.post_init()

    def forward(self, input_ids):
        hidden = self.embedding(input_ids)
        for layer in self.layers:
            hidden = hidden + layer(hidden)
        return hidden

class TinyClassifier(PreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = "body"

    def __init__(self, config):
        super().__init__(config)
        self.body = TinyModel(config)
        self.classifier = nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None]
        return SequenceClassifierOutput(logits=self.classifier((self.body(input_ids) * mask).sum(1) / mask.sum(1)))
"""


def save_remote_model(folder: Path) -> Path:
    """Save a model with code of its own in `folder`, as a repository on the hub has it; return the folder."""
    import json

    from transformers import AutoConfig, AutoModel

    folder.mkdir()
    save_tokenizer(folder)
    (folder / "configuration_tiny.py").write_text(REMOTE_CONFIG)
    (folder / "modeling_tiny.py").write_text(REMOTE_MODEL)
    classes = {"AutoConfig": "configuration_tiny.TinyConfig", "AutoModel": "modeling_tiny.TinyModel"}
    classes["AutoModelForSequenceClassification"] = "modeling_tiny.TinyClassifier"
    (folder / "config.json").write_text(json.dumps({"model_type": "tiny-remote", "auto_map": classes}))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    AutoModel.from_config(config, trust_remote_code=True).save_pretrained(folder)
    return folder
