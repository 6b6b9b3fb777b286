"""Two searches on synthetic audio: classification of tunes, and recognition of the notes that are played.

    python examples/audio.py

It takes under a minute on a CPU. The models have random weights, so that nothing is downloaded; for your own recordings
use pre-trained models such as facebook/wav2vec2-base and openai/whisper-tiny (the latter for classes only).
"""

import csv
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

import hpo

RATE = 4_000  # Hz, the sampling rate of the small models; recordings are resampled to it
NOTES = {"c": 262, "e": 330, "g": 392}


def play(path: Path, notes: str, rng: np.random.Generator) -> None:
    """Write a clip of notes of 0.15 s each, with some noise, at 8 kHz."""
    times = np.arange(1_200) / 8_000
    tones = [np.sin(2 * np.pi * NOTES[note] * times) * np.hanning(len(times)) for note in notes]
    clip = np.concatenate(tones) * rng.uniform(0.2, 0.6)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, clip + rng.normal(0, 0.01, len(clip)), 8_000)


def build_models(folder: Path) -> list[str]:
    """Save a small wav2vec2 and a small HuBERT, each with its feature extractor."""
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (32, 32),
        "conv_kernel": (20, 4),
        "conv_stride": (20, 4),
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 4,
        "classifier_proj_size": 32,
    }
    models = {
        "wav2vec2": Wav2Vec2Model(Wav2Vec2Config(**shape)),
        "hubert": HubertModel(HubertConfig(**shape)),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        Wav2Vec2FeatureExtractor(1, RATE, return_attention_mask=True).save_pretrained(folder / name)
    return [str(folder / name) for name in models]


def search(name: str, task: str, data: Path, models: list[str], epochs: int, trials: int) -> hpo.Result:
    """Run a small search for one task."""
    study = {
        "name": name,
        "task": task,
        "data": str(data),
        "models": models,
        "search_space": {
            "learning_rate": {"low": 2e-3, "high": 1e-2, "log": True},
            "epochs": epochs,
            "batch_size": 16,
            "frozen_layers": {"share": [0, 0.3]},
        },
        "budget": {"max_trials": trials},
        "confirm": {"top": 1, "seeds": 1},
        "backend": "inline",
        "devices": "cpu",
    }
    return hpo.run(study)


def main(folder: Path, rows: int = 60, clips: int = 150, trials: int = 2) -> tuple[hpo.Result, hpo.Result]:
    rng = np.random.default_rng(0)
    models = build_models(folder / "models")
    # Classification: one folder per class.
    for row in range(rows):
        for label, notes in {"rising": "ceg", "falling": "gec"}.items():
            play(folder / "tunes" / label / f"{row}.wav", notes, rng)
    tunes_result = search("tunes", "audio-classification", folder / "tunes", models, 4, trials)
    # Recognition: a table of files and transcripts.
    with (folder / "notes.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("audio", "transcript"))
        for row in range(clips):
            notes = "".join(rng.choice(list(NOTES), rng.integers(2, 5)))
            play(folder / "notes" / f"{row}.wav", notes, rng)
            table.writerow((f"notes/{row}.wav", notes))
    notes_result = search("notes", "speech-recognition", folder / "notes.csv", models[:1], 30, trials)
    play(folder / "new.wav", "gec", rng)
    for result in (tunes_result, notes_result):
        print(result.name, "→", result.predict([folder / "new.wav"])[0]["label"])
    return tunes_result, notes_result


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        tunes, notes = main(Path(folder))
        print("accuracy:", round(tunes.metrics["accuracy"], 3), "word error rate:", round(notes.metrics["wer"], 3))
