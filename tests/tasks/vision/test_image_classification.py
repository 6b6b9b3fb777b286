"""Image classification: any layout, mode and size of images, corrupt files, and cached pixels."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Pillow

from hpo.config.model_ref import ModelRef
from hpo.config.study import DataConfig
from hpo.data.media.files import as_item
from hpo.data.media.images import open_image
from hpo.errors import DataError, ModelError
from hpo.tasks.registry import get_task, infer_task
from hpo.tasks.task_data import TaskData
from hpo.tasks.vision.image_classification import ImageClassification
from hpo.training.batches.encoding_cache import EncodingCache
from hpo.training.models.candidate import load_candidate
from hpo.training.models.processor import load_image_processor, load_processor
from tests.contracts.task_data import write_rows
from tests.small_models import SIDE, save_image_processor, save_model

TASK = get_task("image-classification")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_rows("image-classification", tmp_path / "rows", train=20, other=8)


def prepare(path: Path, **config: Any) -> TaskData:
    return TASK.prepare(DataConfig(path=str(path), **config), 0)


def files(folder: Path, split: str = "train") -> list[Path]:
    return sorted((folder / split).rglob("*.png"))


def bytes_of(image: Any, kind: str = "PNG", **more: Any) -> bytes:
    kept = io.BytesIO()
    image.save(kept, kind, **more)
    return kept.getvalue()


def test_folders_table_and_bytes_give_the_same_data(folder: Path, tmp_path: Path) -> None:
    of_folders = prepare(folder)
    assert of_folders.sizes == {"train": 20, "validation": 8, "test": 8}
    assert of_folders.label_names == ("down", "up")
    for split in of_folders.splits:
        lines = [f"{path.relative_to(folder)},{path.parent.name}" for path in files(folder, split)]
        (tmp_path / "table").mkdir(exist_ok=True)
        (tmp_path / "table" / f"{split}.csv").write_text("\n".join(["file_name,label", *lines]))
    for name in ("train", "validation", "test"):
        (tmp_path / "table" / name).symlink_to(folder / name)
    assert prepare(tmp_path / "table").fingerprint == of_folders.fingerprint
    # As the hub keeps them: bytes in parquet, an Image feature or a plain struct of it.
    kinds = Features({"image": Image(), "label": ClassLabel(names=["down", "up"])})
    for split in of_folders.splits:
        rows = {"image": [{"bytes": p.read_bytes(), "path": p.name} for p in files(folder, split)]}
        rows["label"] = [p.parent.name for p in files(folder, split)]
        (tmp_path / "hub").mkdir(exist_ok=True)
        Dataset.from_dict(rows, features=kinds).to_parquet(tmp_path / "hub" / f"{split}.parquet")
    of_bytes = prepare(tmp_path / "hub")
    assert of_bytes.fingerprint == of_folders.fingerprint
    assert (
        TASK.encode(of_bytes.train, processor_of(tmp_path), 0)["pixel_values"]
        == TASK.encode(of_folders.train, processor_of(tmp_path), 0)["pixel_values"]
    )


def test_table_takes_precedence_over_class_folders(folder: Path) -> None:
    for split in ("train", "validation", "test"):
        lines = [f"{path.relative_to(folder / split)},{int(path.stem) // 2 % 2}" for path in files(folder, split)]
        (folder / split / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    data = prepare(folder)
    assert data.label_names == ("0", "1") and data.columns == {"image": "file_name", "label": "label"}
    assert data.sizes == {"train": 20, "validation": 8, "test": 8}


def processor_of(folder: Path) -> Any:
    save_image_processor(folder / "processor")
    return load_processor(ModelRef(name=str(folder / "processor")), "AutoImageProcessor")


def test_blank_images_and_conflicting_labels_are_counted(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    rows = ["image,label"]
    for number in range(20):
        pixels = np.full((4, 4, 3), 9 * number, np.uint8)
        pixels[0, 0] = 255 if number else 0  # the first has one color
        Pillow.fromarray(pixels).save(tmp_path / "files" / f"{number}.png")
        rows.append(f"{number}.png,{'ab'[number % 2]}")
    (tmp_path / "d.csv").write_text("\n".join([*rows, *(["19.png,a", "19.png,b"] * 2)]))
    notes = str(get_task("image-classification").prepare(DataConfig(path=str(tmp_path / "d.csv")), 0).notes)
    assert "1 of 24 images have one color only" in notes and "1 file with more than one label" in notes


def test_created_splits_share_no_file(folder: Path) -> None:
    files(folder)[0].with_name("copy.png").write_bytes(files(folder)[0].read_bytes())
    made = prepare(folder / "train")
    assert sum(made.sizes.values()) == 21
    digests = {split: set(rows["digest"]) for split, rows in made.splits.items()}
    assert not digests["train"] & digests["validation"] and not digests["train"] & digests["test"]
    (folder / "test" / "up" / "again.png").write_bytes(files(folder)[0].read_bytes())
    assert any("the same file is in test" in note for note in prepare(folder).notes)


def test_corrupt_files_are_reported_by_path(folder: Path) -> None:
    first, second = files(folder)[:2]
    first.write_bytes(first.read_bytes()[:300])
    second.write_text("not an image")
    with pytest.raises(DataError, match=rf"2 of 20 image files cannot be read: row 1: {first} \(.*row 2: {second} \("):
        prepare(folder)
    first.unlink()
    second.unlink()
    assert prepare(folder).sizes["train"] == 18


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label\nnone.png,a\nb.png,b\n", r"train\.csv, row 1: there is no file .*none\.png"),
        ("file,label\n,a\nb.png,b\n", r"train\.csv, column 'file', row 1: empty"),
        ("file,label\nb.png,\nb.png,b\n", r"1 of 2 rows without a label"),
        ("file,kind\nb.png,a\nb.png,b\n", r"which column holds the label\? Columns: file, kind"),
        ("name,label\nb,a\nb,b\n", r"which column holds the images\? Columns: name, label.*`data\.image`"),
    ],
)
def test_invalid_table_raises(table: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(table)
    Pillow.new("RGB", (8, 8)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / "train.csv")


def test_any_mode_is_converted_to_rgb() -> None:
    gray = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (4, 1))
    colors = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    rgb = Pillow.fromarray(colors)
    for image in (rgb.convert("RGBA"), rgb, Pillow.fromarray(gray), Pillow.fromarray(gray.astype(np.uint16) * 256)):
        found = open_image(as_item(bytes_of(image)))
        wanted = np.repeat(gray[..., None], 3, -1) if image.size == (32, 4) else colors
        assert found.mode == "RGB" and np.abs(np.asarray(found).astype(int) - wanted).max() <= 1
    palette = rgb.quantize(8)
    assert (np.asarray(open_image(as_item(bytes_of(palette)))) == np.asarray(palette.convert("RGB"))).all()
    exif = Pillow.Exif()
    exif[0x0112] = 6  # a camera held upright
    assert open_image(as_item(bytes_of(rgb, exif=exif))).size == (6, 9)


def test_cached_pixels_equal_the_processors_output(folder: Path, tmp_path: Path) -> None:
    data, processor = prepare(folder), processor_of(tmp_path)
    assert TASK.check_model(None, processor) == ""
    features = EncodingCache(tmp_path / "kept", TASK, data).get("train", processor, 0)
    values, offsets = features.columns["pixel_values"]
    assert offsets is None and values.dtype == np.uint8 and isinstance(values, np.memmap)
    kept = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.bin"))
    assert kept == 20 * 3 * 16 * 16
    rows = np.array([7, 0, 3])
    images = [open_image(data.train[int(row)]["image"]) for row in rows]
    own = processor(images=images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(features.collate(rows)["pixel_values"], own)
    both = features.concatenate(EncodingCache(tmp_path / "kept", TASK, data).get("validation", processor, 0))
    torch.testing.assert_close(both.collate(np.array([25, 7]))["pixel_values"][1:], own[:1])
    assert len(both) == 28


def test_unsupported_processor_raises(tmp_path: Path) -> None:
    processor = processor_of(tmp_path)
    processor.do_resize = False
    assert "does more" not in TASK.check_model(None, processor)
    odd = Dataset.from_dict({"image": [{"bytes": bytes_of(Pillow.new("RGB", (s, 8))), "path": None} for s in (8, 9)]})
    with pytest.raises((ModelError, ValueError)):
        TASK.encode(odd, processor, 0)


def test_inputs_from_files_folders_and_tables(folder: Path) -> None:
    columns = {"image": "file", "label": "label"}
    paths = [str(path) for path in files(folder, "test")]
    assert TASK.read_inputs(folder / "test", columns) == paths
    assert TASK.read_inputs(files(folder, "test")[0], columns) == paths[:1]
    (folder / "new.csv").write_text("picture\n" + "\n".join(str(Path(p).relative_to(folder)) for p in paths))
    assert [item["path"] for item in TASK.read_inputs(folder / "new.csv", columns)] == paths
    (folder / "new.txt").write_text("\n".join(paths))
    assert TASK.read_inputs(folder / "new.txt", columns) == paths
    with pytest.raises(DataError, match=r"there is no file .*nowhere\.png"):
        TASK.read_inputs(folder / "nowhere.png", columns)


def test_missing_package_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr("hpo.data.optional.import_module", missing)
    with pytest.raises(DataError, match=r"pip install 'hpo-finetune\[vision\]'"):
        prepare(folder)


def test_real_signs_and_their_baseline(shared_datasets: Path) -> None:
    config = DataConfig(path=str(shared_datasets / "sign_digits"))
    from hpo.data.sources import load_splits

    assert infer_task(load_splits(config).train, config) is TASK
    data = TASK.prepare(config, 0)
    assert data.sizes == {"train": 540, "validation": 100, "test": 160}
    baseline = TASK.baseline(data, "accuracy")
    assert baseline is not None and baseline[1] > 0.6  # the folder's own note: 0.694


def test_model_of_gray_images_reads_them_in_one_channel(tmp_path: Path) -> None:
    ref = ModelRef(name=str(save_model(tmp_path, "vit", num_channels=1)), label="gray")
    found = load_candidate(ref, "AutoModelForImageClassification", {"num_labels": 2}, load_image_processor)
    assert TASK.check_model(found.model, found.processor) == ""
    file = tmp_path / "image.png"
    Pillow.new("RGB", (20, 30), (200, 0, 0)).save(file)
    _, (pixels,) = TASK.extract_features([as_item(str(file))], found.processor, 0)
    assert pixels.shape == (1, SIDE, SIDE) and set(pixels.ravel()) == {60}  # 0.299 of 200
    batch = TASK.augment({"pixel_values": torch.from_numpy(pixels[None])}, ["flip"])
    assert found.model(**TASK.prepare_batch(batch, found.processor)).logits.shape == (1, 2)
    found.processor.save_pretrained(tmp_path / "final")
    assert json.loads((tmp_path / "final/preprocessor_config.json").read_text())["image_mean"] == [0.5]


def test_a_table_of_boxes_is_reported_as_detection() -> None:
    columns = {name: [1, 2] for name in ("xmin", "ymin", "xmax", "ymax")}
    rows = Dataset.from_dict({"filename": ["a.jpg", "b.jpg"], "class": ["cat", "dog"], **columns})
    with pytest.raises(DataError, match="object detection is not a task"):
        ImageClassification().find_columns(rows, "d.csv", DataConfig(path="d.csv"))
