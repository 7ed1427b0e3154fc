"""How far a run of the workflow is: one live line, by what jobs of their kind took before.

Jobs differ by a factor of a thousand, so their number says little. Each counts for the core-seconds
that are expected of it, and the time left is that of the work left at the pace so far.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import io
import logging
from collections.abc import Callable, Mapping
from typing import TextIO

from tqdm import tqdm

EVERY = 0.05  # of the work: between two lines where there is no terminal


class Progress(logging.Handler):
    """Follows Snakemake's log, and keeps a line at the end of a terminal; elsewhere it adds lines.

    `expect()` returns the core-seconds that are expected of every job, by its number, once it is
    known which are to be done; `count()` how many run and how many have failed.
    """

    def __init__(
        self,
        expect: Callable[[], Mapping[object, float]],
        count: Callable[[], tuple[int, int]],
        stream: TextIO,
    ) -> None:
        super().__init__()
        self.expect, self.count, self.stream = expect, count, stream
        self.is_live = stream.isatty()
        self.waiting: dict[object, float] = {}
        self.bar: tqdm | None = None
        self.jobs = self.said = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._follow(record)
        except Exception:  # a line that cannot be drawn ends no study
            self.handleError(record)

    def _follow(self, record: logging.LogRecord) -> None:
        event = getattr(getattr(record, "event", None), "name", "")
        if event == "RUN_INFO" and self.bar is None:
            self._start()
        if self.bar is None:
            return
        if event == "JOB_FINISHED":
            self.waiting.pop(record.job_id, None)
            left = min(sum(self.waiting.values()), self.bar.total)
            self.bar.update(self.bar.total - left - self.bar.n)  # not by sums, which round
        if self.is_live:
            self.bar.set_postfix_str(self.line(), refresh=True)
        elif event == "PROGRESS" and self.bar.n >= self.said + EVERY * self.bar.total:
            self.said = self.bar.n
            left = self.left()
            about = f", about {tqdm.format_interval(left)} left" if left else ""
            print(f"{self.bar.n / self.bar.total:.0%} of the work{about}", file=self.stream)

    def line(self) -> str:
        """Jobs done, running, failed."""
        running, failed = self.count()
        parts = [f"{self.jobs - len(self.waiting)} of {self.jobs} jobs", f"{running} running"]
        return ", ".join([*parts, *([f"{failed} failed"] if failed else [])])

    def left(self) -> float | None:
        """Seconds that are left at the pace so far; None: nothing is done yet."""
        elapsed = self.bar.format_dict["elapsed"]
        return elapsed * (self.bar.total - self.bar.n) / self.bar.n if self.bar.n else None

    def before(self, record: logging.LogRecord) -> bool:
        """A filter of the handlers that print: takes the line away, and lets every record pass."""
        if self.bar is not None and self.is_live:
            self.bar.clear()
        return True

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        super().close()

    def _start(self) -> None:
        self.waiting = dict(self.expect())
        self.jobs = len(self.waiting)
        self.bar = tqdm(
            total=sum(self.waiting.values()),
            smoothing=0,  # the pace of the whole run
            leave=False,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar}| {postfix}, {elapsed} gone, {remaining} left",
            file=self.stream if self.is_live else io.StringIO(),  # nowhere
        )
