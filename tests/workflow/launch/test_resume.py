"""Resuming a study, and refusing one that was created from something else."""

from pathlib import Path
from typing import Any

import pytest

import hpo
from hpo.errors import StudyError


def test_finished_study_is_returned_and_more_trials_resume_it(result: hpo.Result, study: dict[str, Any]) -> None:
    before = result.study.trials
    again = hpo.run(study)
    assert again.record == result.record
    more = hpo.run(study, trials=7)
    assert len(more.study.trials) == 7
    assert more.study.trials[:5] == before
    assert hpo.load("reviews").record == more.record
    assert more.record.test.evaluations in (1, 2)  # 1: the same winner, whose final model stays


def test_study_created_from_something_else_raises_with_the_difference(
    result: hpo.Result, study: dict[str, Any], workshop: Path, tmp_path: Path
) -> None:
    study["search_space"]["batch_size"] = [8, 32]
    with pytest.raises(StudyError, match=r"search_space\.batch_size: \[8, 16\] before, \[8, 32\] now"):
        hpo.run(study)
    study["search_space"]["batch_size"] = [8, 16]
    changed = tmp_path / "changed"
    changed.mkdir()
    for split in ("train", "validation", "test"):
        rows = (workshop / "reviews" / f"{split}.csv").read_text().splitlines(keepends=True)
        (changed / f"{split}.csv").write_text("".join(rows[:-2]))
    study["data"] = str(changed)
    with pytest.raises(StudyError, match="data: other rows"):
        hpo.run(study)
