"""hpo finds the best pre-trained model for your data, and how to fine-tune it.

>>> import hpo
>>> result = hpo.run("studies/quickstart.yaml")  # doctest: +SKIP
>>> result.predict(["some text"])  # doctest: +SKIP

Names load lazily, so that `import hpo` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.config.study import StudyConfig, load_config
    from hpo.errors import HpoError
    from hpo.workflow.result import Result, load
    from hpo.workflow.run import run

__version__ = "0.1.0"

_HOMES = {
    "HpoError": "hpo.errors",
    "Result": "hpo.workflow.result",
    "StudyConfig": "hpo.config.study",
    "load": "hpo.workflow.result",
    "load_config": "hpo.config.study",
    "run": "hpo.workflow.run",
}

__all__ = ["HpoError", "Result", "StudyConfig", "__version__", "load", "load_config", "run"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hpo' has no attribute {name!r}")
