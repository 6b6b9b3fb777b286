"""Text formats recognized by their content, whatever the suffix: tables, CoNLL, fastText, Rasa, parallel texts."""

from pathlib import Path

import openpyxl
import pytest

from hpo.config.study import DataConfig
from hpo.data.formats.detect import read_content
from hpo.data.sources import load_splits
from hpo.errors import DataError

WORDS = {"tokens": [["Ann", "likes", "Oslo"], ["Hi"]], "tags": [["B-PER", "O", "B-LOC"], ["O"]]}
TABLE = {"text": ["a red, fast car", "no cars here", "two cars"], "label": ["yes", "no", "yes"]}
PIPES = "a red, fast car|yes\nno cars here|no\ntwo cars|yes\n"
FILES = {
    "conll.txt": ("Ann\tB-PER\nlikes\tO\nOslo\tB-LOC\n\nHi\tO\n", WORDS),
    "conll.tsv": ("Ann\tB-PER\nlikes\tO\nOslo\tB-LOC\n\nHi\tO\n", WORDS),
    "header.tsv": ("word\ttag\n" + "Ann\tB-PER\nlikes\tO\nOslo\tB-LOC\n\nHi\tO\n" * 1, WORDS),
    "conll": ("-DOCSTART- -X- O O\n\nAnn NN - B-PER\nlikes NN - O\nOslo NN - B-LOC\n\nHi NN - O\n", WORDS),
    "sentences.csv": ("Sentence #,Word,POS,Tag\nS1,Ann,N,B-PER\n,likes,V,O\n,Oslo,N,B-LOC\nS2,Hi,U,O\n", WORDS),
    "fasttext.txt": ("__label__yes a red, fast car\n__label__no no cars here\n__label__yes two cars\n", TABLE),
    "pipes.csv": ("text|label\n" + PIPES, TABLE),
    "pipes.txt": ("text|label\n" + PIPES, TABLE),
    "headerless.csv": ('"a red, fast car",yes\nno cars here,no\ntwo cars,yes\n', TABLE),
    "headerless.txt": (PIPES.replace("|", ";"), TABLE),
    "nlu.yml": (
        'version: "3.1"\nnlu:\n- intent: "yes"\n  examples: |\n    - a red, fast [car](thing)\n    - two cars\n'
        '- intent: "no"\n  examples: |\n    - no cars here\n- lookup: x\n  examples: |\n    - y\n',
        {"text": ["a red, fast car", "two cars", "no cars here"], "label": ["yes", "yes", "no"]},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_content_decides_the_format(name: str, tmp_path: Path) -> None:
    text, expected = FILES[name]
    (tmp_path / name).write_text(text)
    assert read_content(tmp_path / name).splits[""].to_dict() == expected


def test_quotes_at_the_start_of_tab_separated_fields_do_not_join_rows(tmp_path: Path) -> None:
    (tmp_path / "d.tsv").write_text('text\tlabel\n"Good\ta\nplain\tb\nso-called "best"\ta\n"bad\tb\n')
    assert read_content(tmp_path / "d.tsv").splits[""]["text"][:] == ['"Good', "plain", 'so-called "best"', '"bad']


def test_header_is_shown_where_it_is_missing_and_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("3,Sports,a match was won\n1,World,a treaty was signed\n3,Sports,a race was run\n")
    content = read_content(path)
    assert content.splits[""].column_names == ["column_1", "column_2", "column_3"]
    assert "column_3 ('a match was won')" in content.notes[0]
    assert read_content(path, header=True).splits[""].column_names == ["3", "Sports", "a match was won"]
    path.write_text("a,b\nx,1\ny,2\n")
    assert read_content(path).splits[""].column_names == ["a", "b"]
    assert len(read_content(path, header=False).splits[""]) == 3


def test_sheets_of_a_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["text", "label"])
    for row in (["one", 1], [None, None], ["two", 2.0]):
        book.active.append(row)
    book.create_sheet("about").append(["made by hand"])
    book.save(tmp_path / "d.xlsx")
    content = read_content(tmp_path / "d.xlsx")
    assert content.splits[""].to_dict() == {"text": ["one", "two"], "label": ["1", "2"]}


def test_parallel_files_are_pairs_by_line(tmp_path: Path) -> None:
    for name, text in {
        "train.de": "eins\nzwei\n",
        "train.en": "one\ntwo\n",
        "dev.de": "drei\n",
        "dev.en": "three\n",
    }.items():
        (tmp_path / name).write_text(text)
    raw = load_splits(DataConfig(path=str(tmp_path)))
    assert raw.train.to_dict() == {"en": ["one", "two"], "de": ["eins", "zwei"]}
    assert raw.validation is not None and raw.validation.to_dict() == {"en": ["three"], "de": ["drei"]}
    assert "'en' is read and 'de' is written" in raw.notes[0]
    (tmp_path / "train.de").write_text("eins\n")
    with pytest.raises(DataError, match=r"2 lines, but train\.de has 1"):
        load_splits(DataConfig(path=str(tmp_path)))


def test_folders_of_texts_are_classes_and_those_without_labels_are_named(tmp_path: Path) -> None:
    for name in ("train/neg/1.txt", "train/pos/2.txt", "train/unsup/3.txt", "test/neg/4.txt", "test/pos/5.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    raw = load_splits(DataConfig(path=str(tmp_path)))
    assert raw.train.to_dict() == {"text": ["train/neg/1.txt", "train/pos/2.txt"], "label": ["neg", "pos"]}
    assert raw.test is not None and len(raw.test) == 2 and "train/unsup/ is not used" in raw.notes[0]


@pytest.mark.parametrize(
    "names",
    [
        ("reviews_train.csv", "reviews_dev.csv", "reviews_test.csv"),
        ("train.csv", "devel.csv", "test.csv"),
        ("eng.train", "eng.testa", "eng.testb"),
        ("train-v1.csv", "eval-v1.csv", "test-v1.csv"),
    ],
)
def test_splits_are_recognized_inside_names_and_others_are_named(names: tuple[str, str, str], tmp_path: Path) -> None:
    for name in (*names, "other.csv"):
        (tmp_path / name).write_text(f"text,label\n{name} one,a\n{name} two,b\n")
    raw = load_splits(DataConfig(path=str(tmp_path)))
    assert raw.origins == dict(zip(("train", "validation", "test"), names, strict=True))
    assert "not used: other.csv" in str(raw.notes)


def test_conll_with_the_tags_before_the_words_is_refused(tmp_path: Path) -> None:
    for name, line in (("train.bio", "{1}\t{0}\n"), ("d.txt", "{1}\t{0}\n"), ("d.conll", "{0} {1} {0}\n")):
        words = [("Ann", "B-PER"), ("likes", "O"), ("Oslo", "B-LOC"), ("Bo", "B-PER"), ("too", "O")]
        (tmp_path / name).write_text("".join(line.format(*word) for word in words))
        with pytest.raises(DataError, match=r"the tags \(B-PER, …\) are in column [12] of [23].*`awk "):
            read_content(tmp_path / name, "utf-8")
