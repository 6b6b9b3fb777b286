"""Audio classification on real clips and on the hub's audio features."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpo.config.study import DataConfig
from hpo.data.media.audio import read_audio
from hpo.data.media.files import item_array
from hpo.tasks.registry import get_task, infer_task
from tests.small_models import RATE

TASK, SPEECH = get_task("audio-classification"), get_task("speech-recognition")


def test_real_digits_and_their_baseline(shared_datasets: Path) -> None:
    from hpo.data.sources import load_splits

    config = DataConfig(path=str(shared_datasets / "fsdd"))
    assert infer_task(load_splits(config).train, config) is TASK
    data = TASK.prepare(config, 0)
    assert data.sizes == {"train": 360, "validation": 120, "test": 300}
    baseline = TASK.baseline(data, "accuracy")
    assert baseline is not None and baseline[1] > 0.8  # the folder's own note: 0.917


def test_hub_feature_is_read_without_its_decoder(folder: Path, tmp_path: Path) -> None:
    from datasets import Audio, ClassLabel, Features

    kinds = Features({"audio": Audio(), "label": ClassLabel(names=["high", "low"])})
    (tmp_path / "hub").mkdir()
    for split in ("train", "validation", "test"):
        files = sorted(path for path in (folder / split).rglob("*") if path.is_file())
        clips = item_array([{"bytes": path.read_bytes(), "path": path.name} for path in files])
        table = pa.table({"audio": clips, "label": pa.array([int(path.parent.name == "low") for path in files])})
        kept = table.replace_schema_metadata(kinds.arrow_schema.metadata)
        pq.write_table(kept, tmp_path / "hub" / f"{split}.parquet")
    of_bytes = TASK.prepare(DataConfig(path=str(tmp_path / "hub")), 0)
    assert of_bytes.fingerprint == TASK.prepare(DataConfig(path=str(folder)), 0).fingerprint
    assert read_audio(of_bytes.train[0]["audio"], RATE).dtype == np.float32
