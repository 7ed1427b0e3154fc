# The line that says how far a run is, and how long it will take (lossgeo.progress).

from snakemake.logging import logger as the_log

from lossgeo import progress


def get_expected():
    """The core-seconds that are expected of the jobs that are to be done, by their numbers."""
    return {job.jobid: get_seconds(job) for job in workflow.dag.needrun_jobs()}


def get_seconds(job):
    """The core-seconds that are expected of a job; of one that is not ours as little as of most."""
    ours = job.rule.module_globals
    if ours.get("ROOT") != ROOT:
        return limits.seconds(RATES, job.rule.name, None)
    name = get_own_name(job.rule)
    section = ours["get_job_section"](name, tuple(job.wildcards.items()))
    return limits.seconds(RATES, name, section, ours["get_contents"]())


def count_jobs():
    """How many jobs run, and how many have failed; a group counts as the jobs in it."""
    scheduler = workflow.scheduler
    found = (list(scheduler.running), list(scheduler.failed))
    return tuple(sum(len(job) for job in jobs) for jobs in found)


is_quiet = {"ALL", "PROGRESS"} & {what.name for what in workflow.output_settings.quiet or ()}
if workflow.is_main_process and not workflow.dryrun and not is_quiet:
    _progress = progress.Progress(get_expected, count_jobs, sys.stderr)
    for handler in the_log.handlers:
        handler.addFilter(_progress.before)
    the_log.addHandler(_progress)
