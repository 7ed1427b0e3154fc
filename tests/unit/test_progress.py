import io
import logging

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from lossgeo.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def follow(monkeypatch):
    """A logger whose Progress writes to a stream; of two jobs one is expected to take long."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")
    logger = logging.getLogger("lossgeo.test_progress")
    logger.setLevel(logging.INFO)
    logger.propagate = False

    def start(stream, failed=0):
        progress = Progress(lambda: {"a": 5.0, "b": 95.0}, lambda: (1, failed), stream)
        printed = logging.StreamHandler(stream)
        printed.addFilter(progress.before)
        logger.handlers[:] = [printed, progress]
        return lambda event, **extra: logger.info("said", extra={"event": event, **extra})

    yield start
    for handler in logger.handlers:
        handler.close()
    logger.handlers.clear()


def test_jobs_count_for_what_is_expected_of_them(follow):
    """Half of the jobs are a twentieth of the work."""
    stream = io.StringIO()
    say = follow(stream)
    say(LogEvent.RUN_INFO)
    say(LogEvent.JOB_FINISHED, job_id="a")
    say(LogEvent.PROGRESS)
    assert "5% of the work, about " in stream.getvalue()
    say(LogEvent.JOB_FINISHED, job_id="b")
    say(LogEvent.PROGRESS)
    assert stream.getvalue().endswith("said\n100% of the work\n")


def test_without_a_terminal_every_twentieth_of_the_work_is_a_line(follow):
    stream = io.StringIO()
    say = follow(stream)
    say(LogEvent.RUN_INFO)
    for _ in range(3):
        say(LogEvent.PROGRESS)
    assert "work" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_on_a_terminal_a_line_stays_below_what_is_printed(follow):
    stream = Terminal()
    say = follow(stream, failed=2)
    say(LogEvent.RUN_INFO)
    say(LogEvent.JOB_FINISHED, job_id="b")
    assert stream.getvalue().rpartition("\r")[2].startswith(" 95% |")
    assert "1 of 2 jobs, 1 running, 2 failed" in stream.getvalue().rpartition("\r")[2]
    say(LogEvent.PROGRESS)
    *_, line, blank, said, again = stream.getvalue().split("\r")
    assert line == again
    assert not blank.strip()
    assert said == "said\n"


def test_nothing_is_said_before_it_is_known_what_is_to_be_done(follow):
    stream = Terminal()
    say = follow(stream)
    say(LogEvent.PROGRESS)
    say(LogEvent.JOB_FINISHED, job_id="a")
    assert stream.getvalue() == "said\nsaid\n"


def test_a_line_that_cannot_be_drawn_ends_nothing(follow, monkeypatch, capsys):
    stream = Terminal()
    say = follow(stream)
    say(LogEvent.RUN_INFO)
    monkeypatch.setattr(Progress, "line", lambda progress: 1 / 0)
    say(LogEvent.JOB_FINISHED, job_id="a")
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert stream.getvalue().count("said\n") == 2
