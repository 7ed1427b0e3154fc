"""What made a file lies beside it, and what does not hold is found."""

import json
import os
import shutil

import pytest

from lossgeo import records
from lossgeo.records import (
    RecordError,
    difference,
    digest,
    fault,
    read,
    read_pins,
    upgraded,
    verified,
    versions,
    write,
)

PARAMS = {"config": {"lr": 0.1, "widths": [1, 2]}, "code": {"train.py": "a" * 64}}


@pytest.fixture
def made(tmp_path):
    """A file in a folder of results, and its record."""
    path = tmp_path / "results" / "runs" / "a" / "x.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    write(path, tmp_path / "results", "train", PARAMS, {"data.csv": "b" * 64})
    return path


def results_of(path):
    return path.parents[2]


def test_a_record_says_what_made_its_file(made):
    record = read(made)
    assert (record.path, record.rule) == ("runs/a/x.h5", "train")
    assert record.params == PARAMS
    assert record.inputs == {"data.csv": "b" * 64}
    assert record.sha256 == verified(made, results_of(made)) == records.digest(made)
    assert fault(record, made, results_of(made)) is None
    assert [path.name for path in made.parent.iterdir() if path != made] == [".x.h5.json"]


def test_results_may_be_copied_with_or_without_their_times(made, tmp_path):
    for name, copy in (("kept", shutil.copy2), ("new", shutil.copyfile)):
        shutil.copytree(results_of(made), tmp_path / name, copy_function=copy)
        assert verified(tmp_path / name / "runs/a/x.h5", tmp_path / name)


def test_what_nothing_is_known_of_is_refused(made):
    records.record_path(made).unlink()
    assert read(made) is None
    with pytest.raises(RecordError, match=r"x\.h5: nothing says what made it\. Delete it"):
        verified(made, results_of(made))


@pytest.mark.parametrize("text", ["", "[]", '{"path": "runs/a/x.h5"}', '{"pa'])
def test_half_a_record_is_none(made, text):
    records.record_path(made).write_text(text)
    assert read(made) is None
    record = dict.fromkeys(records.Record._fields)
    records.record_path(made).write_text(json.dumps(record))
    assert read(made) is None


@pytest.mark.parametrize("content", [b"contenT", b"content and more", b""])
def test_other_bytes_are_found(made, content):
    made.write_bytes(content)
    assert "damaged" in fault(read(made), made, results_of(made))
    with pytest.raises(RecordError, match="damaged"):
        verified(made, results_of(made))


def test_other_bytes_of_the_same_time_are_found_by_who_reads_them(made):
    """Planning trusts a size and a time; jobs look at what they read."""
    time = made.stat().st_mtime_ns
    made.write_bytes(b"contenT")
    os.utime(made, ns=(time, time))
    assert fault(read(made), made, results_of(made)) is None
    with pytest.raises(RecordError, match="damaged: its sha256 is"):
        verified(made, results_of(made))


def test_a_file_that_is_gone_has_nothing_wrong_with_it(made):
    """Snakemake sees that it is missing, and whether anybody needs it."""
    record = read(made)
    made.unlink()
    assert fault(record, made, results_of(made)) is None


def test_the_bytes_of_a_copy_are_looked_at_once(made):
    os.utime(made, (1, 1))
    assert fault(read(made), made, results_of(made)) is None
    assert made.stat().st_mtime_ns == read(made).mtime


def test_a_file_of_another_run_is_foreign_with_its_record(made):
    other = made.parents[1] / "b"
    shutil.copytree(made.parent, other)
    with pytest.raises(RecordError, match=r"foreign: it was made as runs/a/x\.h5"):
        verified(other / "x.h5", results_of(made))


def test_an_upgraded_package_is_named(made):
    record = read(made)
    assert upgraded(record, versions(record.versions)) is None
    older = record._replace(versions={"numpy": "1.0", "no-such-package": "2"})
    assert upgraded(older, {"numpy": "2.0"}) == "other packages: numpy 1.0 then, 2.0 now"
    of_cpu = record._replace(versions={"torch": "2.0+cpu"})
    assert upgraded(of_cpu, {"torch": "2.0"}) is None
    assert upgraded(record._replace(versions={"torch": "2.0"}), {"torch": "2.0+cpu"}) is None
    assert upgraded(of_cpu, {"torch": "2.0+cu130"}) is not None
    assert upgraded(of_cpu, {"torch": "2.1"}) == "other packages: torch 2.0+cpu then, 2.1 now"


def test_pins_are_read_without_what_stands_beside_them(tmp_path):
    (tmp_path / "requirements.txt").write_text("# all\na==1.0  # why\n\nb[extra]==2.0\nc>=3\n")
    assert read_pins(tmp_path / "requirements.txt") == {"a": "1.0", "b[extra]": "2.0"}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"lr": 0.1, "widths": [1, 2]}, ""),
        ({"lr": 0.2, "widths": [1, 2]}, "lr was 0.1, is 0.2"),
        ({"lr": 0.1, "widths": [2, 1]}, "widths was [1, 2], is [2, 1]"),
        ({"lr": 0.1}, "widths is gone"),
        ({"lr": 0.1, "widths": [1, 2], "momentum": 0}, "momentum is new"),
        ({"widths": [1, 2], "lr": 0.1}, ""),
    ],
)
def test_the_first_difference_is_named(now, said):
    assert difference(PARAMS["config"], now) == said


def test_of_changed_code_the_module_is_named_and_not_its_digest():
    code = {"code": {"train.py": "c" * 64}}
    assert difference({"code": PARAMS["code"]}, code) == "code.train.py has changed"


def test_a_folder_is_what_its_files_are(tmp_path):
    results, folder = tmp_path / "results", tmp_path / "results" / "study"
    (folder / "tables").mkdir(parents=True)
    (folder / "README.md").write_text("a page")
    (folder / "tables" / "a.csv").write_text("a\n1\n")
    write(folder, results, "publish", {}, {})
    (folder / ".snakemake_timestamp").touch()  # Snakemake's own, written later
    assert verified(folder, results) == read(folder).sha256
    shutil.copytree(folder, tmp_path / "other" / "study", copy_function=shutil.copy)
    assert digest(tmp_path / "other" / "study") == digest(folder)
    (folder / "tables" / "a.csv").write_text("a\n2\n")
    with pytest.raises(RecordError, match="damaged: its sha256 is"):
        verified(folder, results)
    (folder / "tables" / "a.csv").rename(folder / "tables" / "b.csv")
    assert "damaged" in fault(read(folder), folder, results)
