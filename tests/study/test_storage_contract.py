"""Optuna's own contract of a storage, bare and through the cache that studies put around it."""

import pytest
from optuna.storages import BaseStorage, get_storage
from optuna.storages._cached_storage import _CachedStorage
from optuna.testing.pytest_storages import StorageTestCase

from hpo.study.storage import open_storage


class TestStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, url: str) -> BaseStorage:
        return open_storage(url)


class TestCachedStorage(StorageTestCase):
    @pytest.fixture
    def storage(self, url: str) -> BaseStorage:
        cached = get_storage(open_storage(url))
        assert isinstance(cached, _CachedStorage)
        return cached
