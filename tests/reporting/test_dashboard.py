"""optuna-dashboard: hpo's notes, and the notes of users."""

from hpo.reporting.dashboard import annotate_study
from hpo.storage.records.study import StudyRecord
from tests.reporting.studies import make_study


def test_notes_name_the_winner_and_are_escaped() -> None:
    from optuna.trial import Trial
    from optuna_dashboard import get_note, save_note

    study = make_study()
    annotate_study(study)
    note = get_note(study)
    winner = StudyRecord.of(study).result.winner.trial
    assert f"**Winner: trial {winner}**" in note and "0.712" in note and "<script>" not in note
    frozen = study.trials[winner]
    assert "**The winner.**" in get_note(Trial(study, frozen._trial_id))
    save_note(study, "a note of my own")
    annotate_study(study)
    assert get_note(study) == "a note of my own"


def test_notes_on_an_unfinished_study() -> None:
    from optuna_dashboard import get_note

    study = make_study(trials=0, result=False)
    annotate_study(study)
    assert "4,000 train" in get_note(study) and "Winner" not in get_note(study)
