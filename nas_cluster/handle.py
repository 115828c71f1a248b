"""A job that runs beside its caller: look at it, stop it, wait for it.

from nas_cluster import JobConfig, start

handle = start(JobConfig.load("configs/quickstart.yaml"))
handle.progress().children_done
handle.stop()       # start it again, and it goes on
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

from nas_cluster.cluster.messages import Outcome, Progress
from nas_cluster.cluster.session.after_search import OnTraining
from nas_cluster.cluster.session.supervisor import until_it_raises
from nas_cluster.cluster.session.threads import SessionThread
from nas_cluster.config import JobConfig
from nas_cluster.core.errors import NasClusterError, RunStopped
from nas_cluster.job import OnProgress, load_run, record_of, recorded_progress, session_of
from nas_cluster.storage.layout import run_directory
from nas_cluster.storage.record import RunRecord

__all__ = ["Handle", "start"]


def start(
    config: JobConfig,
    *,
    local: bool = False,
    on_progress: OnProgress = lambda progress: None,
    on_training: OnTraining = lambda row: None,
) -> Handle:
    """Begin what `run` does, in a thread of its own, and return at once what to look at it with.

    Raises UserError when the input is wrong; what only shows later (no cluster answers), `Handle.wait` raises. Both
    callbacks are called in that thread. A run that goes on when the interpreter ends is stopped by that, resumable.
    """
    return Handle(config, local=local, on_progress=on_progress, on_training=on_training)


class Handle:
    """A session of a job that goes on in a thread of its own; made by `start`. Every method may be called from any
    thread at any time."""

    directory: Path
    """Where the run is."""

    def __init__(self, config: JobConfig, *, local: bool, on_progress: OnProgress, on_training: OnTraining) -> None:
        self._config = config
        self._on_progress = until_it_raises(on_progress)
        self._awaited = self._stopped = False
        session = session_of(config, local=local, on_progress=self._note, on_training=on_training)
        self.directory = run_directory(config.storage_path, config.name)
        self._newest = recorded_progress(config, self.record)
        self._thread: SessionThread[Outcome] = SessionThread(session)
        self._thread.ended.add_done_callback(lambda ended: self._say_unless_heard())
        self._thread.start()

    def progress(self) -> Progress:
        """How it stands, or stood when it ended; at most a second old."""
        return self._newest

    @cached_property
    def record(self) -> RunRecord:
        """The record of the run, which grows while it goes on."""
        return load_run(self.directory)

    @property
    def done(self) -> bool:
        """Whether the session is over; `wait` then says at once how it ended."""
        return self._thread.ended.done()

    def stop(self, *, wait: bool = True) -> None:
        """Stop it as SIGTERM would: children in flight get `failures.stop_grace`, a last snapshot is written, and the
        run can be resumed. With `wait` it is over on return, but for a call from one of its own callbacks."""
        self._stopped = True
        self._thread.ask("asked by its handle", "stopped")
        if wait and not self._thread.current:
            self._thread.ended.exception()

    def wait(self, timeout: float | None = None) -> RunRecord:
        """Wait until it is over, and return its record. Raises what `run` raises: RunStopped also after `stop`.

        Raises TimeoutError when it still goes on after so many seconds. That, or a KeyboardInterrupt, ends the waiting
        and not the run. Raises RuntimeError from a callback of the run, which would wait for itself.
        """
        if self._thread.current and not self.done:
            raise RuntimeError("a callback of a run that waits for this run would wait for ever: wait somewhere else")
        self._awaited = True
        try:
            return record_of(self._config, self._thread.ended.result(timeout))
        finally:
            self._awaited = False

    def _note(self, progress: Progress) -> None:
        self._newest = progress
        self._on_progress(progress)

    def _say_unless_heard(self) -> None:
        """Log what nobody is there to be told: whoever waits later hears it all the same."""
        if self._awaited:
            return
        try:
            record_of(self._config, self._thread.ended.result())
        except NasClusterError as error:
            if not (self._stopped and isinstance(error, RunStopped)):
                logging.getLogger(__name__).error("%s: %s", self.directory, _without(self.directory, error))
        except BaseException as error:
            logging.getLogger(__name__).error("%s: ended by a bug", self.directory, exc_info=error)


def _without(directory: Path, error: NasClusterError) -> str:
    """The error's message, which may begin with the directory itself."""
    return str(error).removeprefix(f"{directory}: ")
