"""The database fixtures of the storage tests."""

from tests.storage.conftest import empty_database, make_study, storage, study, url

__all__ = ["empty_database", "make_study", "storage", "study", "url"]
