"""The private parts of Ray that hpo uses: what each is for, and a check at import that each still exists."""

import inspect
from typing import Any

import ray

from hpo.errors import ConfigError

# The versions whose private parts were tested; `pyproject.toml` has the same bounds.
WORKING_VERSIONS = "ray>=2.50,<2.61"


def _unsuitable(missing: str) -> ConfigError:
    return ConfigError(
        f"backend: ray: hpo uses private parts of Ray that the installed Ray {ray.__version__} does not have: "
        f"{missing}. Install a version that works: pip install '{WORKING_VERSIONS}'"
    )


try:
    from ray._private import ray_constants, services
except ImportError as error:
    raise _unsuitable(str(error)) from None


def verify_ray() -> None:
    """Raise `ConfigError` unless the installed Ray has every private part that hpo uses."""
    missing = []
    find = getattr(services, "find_bootstrap_address", None)
    if find is None or list(inspect.signature(find).parameters) != ["temp_dir"]:
        missing.append("services.find_bootstrap_address(temp_dir), which finds a cluster on this machine")
    if not hasattr(ray_constants, "ENABLE_RAY_CLUSTER"):
        missing.append("ray_constants.ENABLE_RAY_CLUSTER, which keeps a cluster off the network")
    # An argument that `ray.init` does not read would be ignored, and the cluster would listen on every interface.
    if "_node_ip_address" not in inspect.unwrap(ray.init).__code__.co_consts:
        missing.append("ray.init(_node_ip_address=...), which keeps a cluster off the network")
    if missing:
        raise _unsuitable("; ".join(missing))


def find_local_cluster() -> str | None:
    """Return the address of a cluster that runs on this machine, as `ray.init("auto")` finds it."""
    return services.find_bootstrap_address(None)


def use_loopback(only: bool) -> None:
    """Keep Ray on 127.0.0.1, which it otherwise replaces with the machine's address in the network."""
    ray_constants.ENABLE_RAY_CLUSTER = not only


def start_on_loopback(**options: Any) -> None:
    """Start a cluster on 127.0.0.1 and without its dashboard: access to Ray's ports is access to run code."""
    use_loopback(True)
    ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **options)


verify_ray()
