# Snakemake 9.27.1 starts a timer whenever it looks for jobs, so as to look again when its limit on
# jobs per second allows more. Each finished job so adds one more look a second, for good: after 700
# jobs they take a whole core. Here it looks again where the limit has held jobs back, once at a time.

import threading

from snakemake.scheduling.job_scheduler import JobScheduler


def look_again(scheduler, delay):
    """Let a scheduler look for jobs after `delay` seconds, if it has to and is not going to."""
    limit = scheduler.job_rate_limiter
    is_free = limit is not None and delay == limit.timespan and limit.get_free_jobs() > 0

    def look():
        scheduler.is_waiting = False
        scheduler._open_jobs.release()

    if not is_free and not getattr(scheduler, "is_waiting", False):
        scheduler.is_waiting = True
        timer = threading.Timer(delay, look)
        timer.daemon = True  # nobody waits for it at the end
        timer.start()


JobScheduler._schedule_reevalutation = look_again
