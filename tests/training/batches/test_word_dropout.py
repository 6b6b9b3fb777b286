"""Word dropout: hides no special tokens, other words in each epoch, the same in a resumed run, and no prefix cache."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hpo.errors import ModelError
from hpo.training.batches.word_dropout import drop_words, mask_token
from hpo.training.fine_tune import FineTuning
from hpo.training.frozen.cache import PrefixCache
from hpo.training.plan import TrainingPlan
from tests.small_models import WORDS
from tests.training.conftest import FIRST_WORD, few_words, make_features, make_splits

Plan = Callable[..., TrainingPlan]
MASK = WORDS.index("[MASK]")


def test_a_share_of_the_words_is_hidden() -> None:
    features = make_features(2000)
    values, offsets = features.columns["input_ids"]
    values[offsets[1:] - 1] = 3
    found = drop_words(features, 0.25, MASK, range(FIRST_WORD), seed=1, epoch=2)
    after, _ = found.columns["input_ids"]
    hidden = after != values
    assert set(after[hidden]) == {MASK}
    assert hidden[values >= FIRST_WORD].mean() == pytest.approx(0.25, abs=0.01)
    assert not hidden[values < FIRST_WORD].any()
    again, other = (drop_words(features, 0.25, MASK, range(FIRST_WORD), 1, epoch) for epoch in (2, 3))
    assert np.array_equal(again.columns["input_ids"][0], after)
    assert not np.array_equal(other.columns["input_ids"][0], after)
    assert np.array_equal(features.columns["input_ids"][0], values)


def test_resumed_run_hides_the_same_words_without_prefix_cache(plan: Plan, tmp_path: Path) -> None:
    of = {**make_splits(), "prefixes": PrefixCache(tmp_path / "prefixes")}
    expected = list(FineTuning(plan(epochs=2, word_dropout=0.3, frozen_layers=1, of=of)).reports())
    plain = list(FineTuning(plan(epochs=2, frozen_layers=1, of=make_splits())).reports())
    assert expected[-1].train_loss != pytest.approx(plain[-1].train_loss, rel=1e-6)
    made = plan(epochs=2, word_dropout=0.3, frozen_layers=1, of=of)
    run = FineTuning(made)
    assert next(run.reports()).train_loss == expected[0].train_loss
    assert run.execution.prefix_cache == "not used: augmentation changes the examples in every epoch"
    run.save()
    assert [report.train_loss for report in FineTuning(made).reports()] == [expected[1].train_loss]  # the second epoch


def test_mask_token_is_in_the_trimmed_embedding(plan: Plan) -> None:
    of = {"train": few_words(make_features()), "validation": few_words(make_features(24, 1))}
    run = FineTuning(plan(word_dropout=0.5, epochs=1, of=of))
    assert run._setup.embedding is not None
    before = run.plan.candidate.model.get_input_embeddings().weight[MASK]
    list(run.reports())
    assert not (run.model.get_input_embeddings().weight[MASK] == before).all()


def test_mask_token_is_the_mask_or_the_unknown_token() -> None:
    assert mask_token(SimpleNamespace(mask_token_id=4, unk_token_id=1)) == 4
    assert mask_token(SimpleNamespace(mask_token_id=None, unk_token_id=0)) == 0
    with pytest.raises(ModelError, match="no mask token and no unknown token"):
        mask_token(SimpleNamespace(unk_token_id=9, eos_token_id=9))  # GPT-2
