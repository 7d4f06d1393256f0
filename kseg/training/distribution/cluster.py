"""A group of processes that train one model together: what TF_CONFIG says of it."""

import json
import os
from typing import NamedTuple

from kseg.io.errors import InputError

_EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


class Group(NamedTuple):
    """Place of this process in its group: `index` of `workers`, the first being the chief."""

    index: int
    workers: int


def read_group():
    """Return the Group that the environment variable TF_CONFIG describes.

    Raises:
        ValueError: it is not set, is not JSON, names tasks that are neither chief nor worker, or has none for this
        process.
    """
    config = _config()
    cluster = config.get("cluster", {})
    task = config.get("task", {})
    names = [(kind, i) for kind in ("chief", "worker") for i in range(len(cluster.get(kind, ())))]
    place = task.get("type"), task.get("index")
    if not names:
        raise InputError(
            f"strategy multiworker needs TF_CONFIG, for example {_EXAMPLE}, on every worker with its own index."
        )
    if set(cluster) - {"chief", "worker"} or place not in names:
        raise InputError(
            f"TF_CONFIG must name chief and workers only, and one of them as this process's task, got cluster "
            f"{json.dumps(cluster)} and task {json.dumps(task)}. An example: {_EXAMPLE}"
        )
    return Group(names.index(place), len(names))


def leads(strategy):
    """Whether this process writes what a run leaves: alone, or the chief of the group under "multiworker"."""
    return strategy != "multiworker" or read_group().index == 0


def check_alone(what):
    """Raise ValueError if TF_CONFIG names a group: workers that each train alone would only look like a group."""
    cluster = _config().get("cluster", {})
    workers = sum(len(cluster.get(kind, ())) for kind in ("chief", "worker"))
    if workers > 1:
        raise InputError(
            f"Training runs on one machine ({what}), but TF_CONFIG names {workers} workers. Unset it, or use "
            "strategy multiworker."
        )


def _config():
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"TF_CONFIG must be JSON like {_EXAMPLE}, got {text!r} ({error}).") from error
    if not isinstance(config, dict) or not all(isinstance(config.get(key, {}), dict) for key in ("cluster", "task")):
        raise InputError(f"TF_CONFIG must be JSON like {_EXAMPLE}, got {text!r}.")
    return config
