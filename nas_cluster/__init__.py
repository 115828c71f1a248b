"""Neural architecture search as a job on a Ray cluster."""

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"
__all__ = ["JobConfig", "load_run", "resume", "run", "start"]

if TYPE_CHECKING:
    from nas_cluster.config import JobConfig
    from nas_cluster.handle import start
    from nas_cluster.job import load_run, resume, run


def __getattr__(name: str) -> Any:
    """Load the public names when they are asked for: a worker process that needs one module imports one module."""
    if name == "JobConfig":
        from nas_cluster.config import JobConfig

        return JobConfig
    if name == "start":
        from nas_cluster.handle import start

        return start
    if name in __all__:
        from nas_cluster import job

        return getattr(job, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
