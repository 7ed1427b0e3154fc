# Snakemake decides what to run again by records of its own, under .snakemake, which do not travel
# with results and know nothing of another clone that writes into the same folder. Here it goes by
# those that lie beside the files (lossgeo.records). Rules need no line for it. Another workflow can
# use the rules under other names, twice with two configs, and beside rules of its own.

import json

import snakemake.workflow
from snakemake.logging import logger
from snakemake.persistence import MetadataRecord, NO_PARAMS_CHANGE, ParamsChange
from snakemake.persistence.file import FilePersistence

from lossgeo import records

# in the environments that Snakemake makes: a test holds envs/ to this file
PINNED = records.read_pins(ROOT / "requirements.txt")


class ResultsPersistence(FilePersistence):
    """What Snakemake asks of its records, answered from those beside the study's files."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._found: dict[str, records.Record | None] = {}
        self._named: set[str] = set()

    def has_metadata(self, job):
        return True if is_recorded(job) else super().has_metadata(job)

    def has_outdated_metadata(self, job):
        return False if is_recorded(job) else super().has_outdated_metadata(job)

    def metadata(self, target):
        """Snakemake's own, for its report; of a copied file as much as its record says."""
        found = super().metadata(target)
        record = None if found else self._record(str(target))
        if record is None:
            return found
        made = record.mtime / 1e9
        known = {"rule": record.rule, "starttime": made, "endtime": made}
        return MetadataRecord(**known, job_hash=hash(record.path))

    def params_changed(self, job, file=None):
        """Whether what made a file, or its content, is not what is asked for; which is said."""
        if not is_recorded(job):
            return super().params_changed(job, file)
        paths = [str(path) for path in ([file] if file else job.output)]
        reasons = {path: why for path in paths if (why := self._why_stale(job, path))}
        for path, why in reasons.items():
            say = logger.debug if why in self._named else logger.info  # once, of many files
            self._named.add(why)
            say(f"{path} is made again: {why}")
        if reasons:
            return ParamsChange(only_old=set(reasons.values()), files=set(reasons))
        return NO_PARAMS_CHANGE

    def _input_changed(self, job, file=None):
        if not is_recorded(job):
            return super()._input_changed(job, file)
        record = self._record(str(file))
        if record is None:
            return False
        return without_tiles(record.inputs) != without_tiles(get_recorded_inputs(job))

    def input_checksums(self, job, input_path):
        if not is_recorded(job):
            return super().input_checksums(job, input_path)
        found = [self._record(str(path)) for path in job.output]
        name = records.relative(input_path, get_results(job))
        digests = {record.inputs.get(name) if record else None for record in found}
        return {digest and f"sha256:{digest}" for digest in digests}

    def _clear_cache(self):
        super()._clear_cache()
        self._found = {}

    def _record(self, path):
        if path not in self._found:
            self._found[path] = records.read(path)
        return self._found[path]

    def _versions(self, packages):
        """Of these packages, as they are in the environments of jobs."""
        if self.dag.workflow.deployment_settings.deployment_method:
            return PINNED
        return records.versions(packages)

    def _why_stale(self, job, path):
        record, results = self._record(path), get_results(job)
        if record is None:
            return "nothing says what made it" if Path(path).exists() else None
        wrong = records.fault(record, path, results)
        if wrong is None:
            wrong = records.upgraded(record, self._versions(record.versions))
        if wrong:
            return wrong
        asked = json.loads(json.dumps(dict(job.params.items())))
        if json.dumps(asked) != json.dumps(record.params):
            return records.difference(record.params, asked) or "its params are in another order"
        for name, digest in record.inputs.items():
            made = self._record(str(Path(results, name)))
            if made is not None and made.sha256 != digest:
                return f"another {Path(name).name} is there than it was made from"
        return None


def is_recorded(job):
    """Whether a job's files have records: those of our rules, but the data."""
    is_ours = job.rule.module_globals.get("ROOT") == ROOT
    return is_ours and bool(job.output) and get_own_name(job.rule) != "data"


def get_results(job):
    """The results of the study that a job is of."""
    return job.rule.module_globals["RESULTS"]


def get_recorded_inputs(job):
    """The inputs of a job that have records, relative to the results."""
    files = study.get_data_files(job.rule.module_globals["config"])
    return list(records.tracked(job.input, get_results(job), files))


def without_tiles(names):
    """All inputs but tiles: into how many surfaces were cut does not make them others."""
    return [name for name in names if Path(name).parent.name != "tiles"]


if workflow.workflow_settings.persistence_backend.name != "FILE":
    stop("--persistence-backend: found another than file, expected file: records lie beside files")
if workflow.storage_settings and workflow.storage_settings.default_storage_provider:
    stop(
        "--default-storage-provider: found "
        f"{workflow.storage_settings.default_storage_provider}, expected none: records lie beside "
        "files, and would not be copied with them; put `results` on a file system that all nodes see"
    )

snakemake.workflow.FilePersistence = ResultsPersistence
