"""The worker: one thread that computes, and a bounded queue before it.

    submit ──> waiting, at most so many ──take one, and all of its group──> run ──> a result for each
                  │ full: QueueFull                                         │ asked to stop: Stopped
                  └ cancelled: it leaves at once                            └ only once all that are run together are

Models take all cores for one request as for several, so that one thread is enough; what waits with the same settings is
run together instead.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

LONGEST_RETRY_S = 60
LONGEST_STOP_S = 5
"""How long an end waits for what cannot be stopped half-way; the thread then ends with the process."""


class QueueFull(Exception):
    """As many jobs wait as may."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full: come back in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Stopped(Exception):
    """Work was given up, for nobody waits for it any more."""


@dataclass(eq=False)
class Job:
    """Work for the worker."""

    run: Callable[[Sequence[Job]], Sequence[Any]]
    """Does the work of jobs of one group, and returns a result for each."""
    order: Any
    """What this one asks for."""
    group: Hashable = None
    """Jobs of the same group may be run together; those of None are run alone."""
    size: int = 1
    """How many pictures it is."""
    future: Future[Any] = field(default_factory=Future)
    is_cancelled: bool = False
    ahead: int = 0
    """How many waited before it when it was submitted."""


def stop_if_cancelled(jobs: Sequence[Job]) -> None:
    """Raise Stopped if nobody waits for any of some jobs. What takes long calls it now and then."""
    if all(job.is_cancelled for job in jobs):
        raise Stopped


class Worker:
    """A thread, and the jobs that wait for it."""

    def __init__(self, most_waiting: int, most_together: int, on_run: Callable[[int, int, float], None]) -> None:
        """Make a worker, not started yet.

        most_together: pictures. on_run: called after each run with its jobs, its pictures and the seconds it took.
        """
        self._most_waiting, self._most_together, self._on_run = most_waiting, most_together, on_run
        self._waiting: deque[Job] = deque()
        self._running: Sequence[Job] = ()
        self._changed = threading.Condition()
        self._usual_s = 1.0
        self._should_end = False
        self._thread = threading.Thread(target=self._work, name="studio-worker", daemon=True)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what waits and what runs, and end."""
        with self._changed:
            self._should_end = True
            for job in (*self._waiting, *self._running):
                job.is_cancelled = True
                if not job.future.done():
                    job.future.set_exception(Stopped())
            self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout=LONGEST_STOP_S)

    def submit(self, job: Job) -> Job:
        """Have a job wait for its turn. Raises QueueFull."""
        with self._changed:
            if len(self._waiting) >= self._most_waiting or self._should_end:
                seconds = math.ceil(self._usual_s * (len(self._waiting) + 1))
                raise QueueFull(min(max(seconds, 1), LONGEST_RETRY_S))
            job.ahead = len(self._waiting)
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Give a job up: it leaves the queue, or stops where it can, unless others are run with it."""
        with self._changed:
            job.is_cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.future.cancel()

    def _work(self) -> None:
        while (jobs := self._take()) is not None:
            began = time.monotonic()
            results: Sequence[Any] = ()
            failure: BaseException | None = None
            try:
                results = jobs[0].run(jobs)
            except BaseException as error:  # it is for whoever waits; the thread goes on
                failure = error
            self._settle(jobs, results, failure)
            seconds = time.monotonic() - began
            self._usual_s += 0.2 * (seconds - self._usual_s)
            self._on_run(len(jobs), sum(job.size for job in jobs), seconds)

    def _settle(self, jobs: Sequence[Job], results: Sequence[Any], failure: BaseException | None) -> None:
        with self._changed:
            for number, job in enumerate(jobs):
                if job.future.done():  # the studio is closing
                    continue
                if failure is None:
                    job.future.set_result(results[number])
                else:
                    job.future.set_exception(failure)

    def _take(self) -> Sequence[Job] | None:
        """Wait for a job; return it, and those that wait and can be run with it. None at the end."""
        with self._changed:
            self._running = ()
            self._changed.wait_for(lambda: self._waiting or self._should_end)
            if self._should_end:
                return None
            jobs = [self._waiting.popleft()]
            room = self._most_together - jobs[0].size
            for job in [job for job in self._waiting if job.group is not None and job.group == jobs[0].group]:
                if job.size <= room:
                    self._waiting.remove(job)
                    jobs.append(job)
                    room -= job.size
            for job in jobs:
                job.future.set_running_or_notify_cancel()  # from here on, nobody else settles it
            self._running = jobs
            return jobs
