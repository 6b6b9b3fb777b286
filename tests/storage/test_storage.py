"""Optuna's own tests of a storage, with and without the cache that studies put around it."""

import optuna
import pytest
from optuna.storages import BaseStorage, get_storage
from optuna.storages._cached_storage import _CachedStorage
from optuna.testing.pytest_storages import StorageTestCase
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from hpo.storage.budget import seconds_run
from hpo.storage.storage import Storage


class TestStorage(StorageTestCase):
    """With the fixture `storage` of this folder."""


class TestCachedStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, storage: Storage) -> BaseStorage:
        cached = get_storage(storage)
        assert isinstance(cached, _CachedStorage)
        return cached


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_server_that_goes_down_between_reading_and_closing_raises_nothing(
    storage: Storage, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollback on closing then fails, after all rows were read: it ended a search once in some crashes."""

    def lost(_: Session) -> None:
        raise OperationalError("ROLLBACK", {}, Exception("server closed the connection unexpectedly"))

    with monkeypatch.context() as patch:
        patch.setattr(Session, "close", lost)
        assert seconds_run(study) == 0.0
    assert seconds_run(study) == 0.0
