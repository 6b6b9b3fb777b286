"""The replay of a trial."""

import hpo
from hpo.workflow.replay import replay


def test_replay_has_the_same_values(result: hpo.Result) -> None:
    found = replay(result.study, 0)
    assert found.replayed == found.recorded
    assert found.steps == [1, 2, 3]
    assert found.not_applied == []
