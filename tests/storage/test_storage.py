"""Optuna's own tests of a storage, with and without the cache that studies put around it."""

import pytest
from optuna.storages import BaseStorage, get_storage
from optuna.storages._cached_storage import _CachedStorage
from optuna.testing.pytest_storages import StorageTestCase

from hpo.storage.storage import Storage


class TestStorage(StorageTestCase):
    """With the fixture `storage` of this folder."""


class TestCachedStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, storage: Storage) -> BaseStorage:
        cached = get_storage(storage)
        assert isinstance(cached, _CachedStorage)
        return cached
