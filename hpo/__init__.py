"""hpo finds the best pre-trained model for your data, and how to fine-tune it.

>>> import hpo
>>> result = hpo.run("studies/quickstart.yaml")  # doctest: +SKIP
>>> result.predict(["some text"])  # doctest: +SKIP

Names load lazily, so that `import hpo` loads neither torch nor transformers nor optuna.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hpo.core.hub_caches import use_writable_caches
from hpo.core.version import VERSION

if TYPE_CHECKING:
    from hpo.config.search_space import SearchSpace as SearchSpace
    from hpo.config.study import StudyConfig as StudyConfig
    from hpo.config.trial_params import TrialParams as TrialParams
    from hpo.errors import (
        ConfigError as ConfigError,
    )
    from hpo.errors import (
        DataError as DataError,
    )
    from hpo.errors import (
        DeviceLost as DeviceLost,
    )
    from hpo.errors import (
        Diverged as Diverged,
    )
    from hpo.errors import (
        HpoError as HpoError,
    )
    from hpo.errors import (
        ModelError as ModelError,
    )
    from hpo.errors import (
        OutOfMemory as OutOfMemory,
    )
    from hpo.errors import (
        StorageError as StorageError,
    )
    from hpo.errors import (
        StudyError as StudyError,
    )
    from hpo.errors import (
        TrialError as TrialError,
    )
    from hpo.tasks.base import Task as Task
    from hpo.workflow.callbacks import Callback as Callback
    from hpo.workflow.checks.study import check as check
    from hpo.workflow.predict import Predictor as Predictor
    from hpo.workflow.rank import rank as rank
    from hpo.workflow.result import Result as Result
    from hpo.workflow.result import load as load
    from hpo.workflow.retrain import retrain as retrain
    from hpo.workflow.run import run as run
    from hpo.workflow.stop import delete as delete
    from hpo.workflow.stop import stop as stop
    from hpo.workflow.studies import list_studies as list_studies
    from hpo.workflow.studies import status as status

__version__ = VERSION

use_writable_caches()  # here, since the libraries read the variables when they are imported

_MODULES = {
    "hpo.config.search_space": ("SearchSpace",),
    "hpo.config.study": ("StudyConfig",),
    "hpo.config.trial_params": ("TrialParams",),
    "hpo.errors": (
        *("ConfigError", "DataError", "DeviceLost", "Diverged", "HpoError", "ModelError", "OutOfMemory"),
        *("StorageError", "StudyError", "TrialError"),
    ),
    "hpo.tasks.base": ("Task",),
    "hpo.workflow.callbacks": ("Callback",),
    "hpo.workflow.checks.study": ("check",),
    "hpo.workflow.predict": ("Predictor",),
    "hpo.workflow.rank": ("rank",),
    "hpo.workflow.result": ("Result", "load"),
    "hpo.workflow.retrain": ("retrain",),
    "hpo.workflow.run": ("run",),
    "hpo.workflow.stop": ("delete", "stop"),
    "hpo.workflow.studies": ("list_studies", "status"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_MODULE_OF, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hpo' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return found


def __dir__() -> list[str]:
    return __all__
