"""Hyperparameters of a trial, and the number of layers that a share freezes."""

from collections import Counter

import pytest
from pydantic import ValidationError

from hpo.config.trial_params import TrialParams, share_for_count


@pytest.mark.parametrize("layers", [1, 3, 6, 12])
def test_uniform_share_makes_every_count_equally_likely(layers: int) -> None:
    points = 1000 * (layers + 1)
    shares = [(index + 0.5) / points for index in range(points)]
    counts = Counter(TrialParams(model="m", frozen_share=share).resolve_frozen_layers(layers) for share in shares)
    assert counts == dict.fromkeys(range(layers + 1), 1000)
    assert TrialParams(model="m", frozen_share=1).resolve_frozen_layers(layers) == layers
    for count in range(layers + 1):
        share = share_for_count(count, layers)
        assert TrialParams(model="m", frozen_share=share).resolve_frozen_layers(layers) == count


def test_count_of_frozen_layers_is_checked_against_the_model() -> None:
    params = TrialParams(model="small", frozen_layers=4)
    assert params.resolve_frozen_layers(4) == 4
    with pytest.raises(ValueError, match="4 is more than the 3 layers of small"):
        params.resolve_frozen_layers(3)


def test_active_omits_settings_without_effect() -> None:
    plain, adapted = TrialParams(model="m").active(), TrialParams(model="m", peft="lora", lora_r=4).active()
    assert "lora_r" not in plain and plain["peft"] == "none"
    assert adapted.keys() == TrialParams.model_fields.keys()
    assert TrialParams(**plain) == TrialParams(model="m")


def test_frozen_layers_accepts_a_share() -> None:
    written = {"model": "m", "frozen_layers": {"share": 0.5}}
    assert TrialParams.model_validate(written) == TrialParams(model="m", frozen_share=0.5)
    assert written["frozen_layers"] == {"share": 0.5}  # the input is not modified
    with pytest.raises(ValidationError, match=r"a count, or .share"):
        TrialParams.model_validate({"model": "m", "frozen_layers": {"shar": 0.5}})
