"""Results say what made them: copied, shared, swapped or damaged, nothing stale stays."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from workflow.conftest import RESULTS, clone, edit_config, planned, run, snakemake

SEED0, SEED1 = (RESULTS / "runs" / "mlp-4" / "momentum" / f"seed{seed}" for seed in (0, 1))


@pytest.fixture
def copied(built, tmp_path):
    """A clone into which results were copied, without Snakemake's records and file times."""
    project = clone(tmp_path / "clone")
    subprocess.run(["cp", "-r", built / "results", project / "results"], check=True)
    assert not (project / ".snakemake" / "metadata").exists()
    return project


def record_of(path):
    return path.with_name(f".{path.name}.json")


def damage(path, *, at: int = -100):
    """Flip one bit, and keep size and time."""
    content, stat = bytearray(path.read_bytes()), path.stat()
    content[at] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_results_that_are_copied_alone_are_up_to_date(copied):
    assert planned(copied) == {}


def test_a_change_after_copying_reruns_what_it_concerns_and_says_why(copied):
    edit_config(copied, lambda config: config["optimizers"]["wild"].update(lr=1e29))
    edit_config(copied, lambda config: config["seeds"].append(7))
    done = snakemake(copied, "-n")
    assert "config.optimizer.lr was 1e+30, is 1e+29" in done.stdout + done.stderr
    train = planned(copied)["train"]
    assert {file for file in train if "/seed7/" not in file} == {
        f"runs/mlp-4/wild/seed{seed}/{file}"
        for seed in (0, 1)
        for file in ("snapshots.h5", "history.csv")
    }
    assert len(train) == 4 + 8


def test_an_edited_module_reruns_copied_results_too(copied):
    with open(copied / "scripts" / "lossgeo" / "curvature.py", "a") as module:
        module.write("\nEDITED = True\n")
    plan = planned(copied)
    assert {"hessian", "landscape"} <= plan.keys()
    assert "train" not in plan


def test_comments_and_docstrings_rerun_nothing(copy):
    for name in ("store", "data", "job"):
        path = copy / "scripts" / "lossgeo" / f"{name}.py"
        path.write_text(path.read_text().replace('"""', '"""Edited. ', 1) + "\n# edited\n")
    assert planned(copy) == {}


def test_results_of_another_clone_in_the_same_folder_are_not_taken_for_ones_own(copy, tmp_path):
    """Another clone wrote into the folder: this one's own Snakemake records say 'unchanged'."""
    other = tmp_path / "other"
    subprocess.run(["cp", "-a", copy, other], check=True)
    edit_config(other, lambda config: config["optimizers"]["wild"].update(lr=1e29))
    target = RESULTS / "runs" / "mlp-4" / "wild" / "seed0" / "history.csv"
    run(other, str(target))
    for name in ("history.csv", "snapshots.h5"):
        for path in (target.with_name(name), record_of(target.with_name(name))):
            shutil.copy2(other / path, copy / path)
    assert "runs/mlp-4/wild/seed0/history.csv" in planned(copy)["train"]


def swapped(project):
    shutil.copy2(project / SEED1 / "snapshots.h5", project / SEED0 / "snapshots.h5")


def swapped_with_its_record(project):
    swapped(project)
    records = (record_of(project / seed / "snapshots.h5") for seed in (SEED1, SEED0))
    shutil.copy2(*records)


def without_record(project):
    record_of(project / SEED0 / "history.csv").unlink()


def shortened(project):
    path = project / SEED0 / "history.csv"
    path.write_bytes(path.read_bytes()[:-20])


def upgraded(project):
    path = record_of(project / SEED0 / "snapshots.h5")
    record = json.loads(path.read_text())
    record["versions"]["numpy"] = "1.0"
    path.write_text(json.dumps(record))


WRONG = {
    swapped: "damaged: its sha256 is",
    swapped_with_its_record: "foreign: it was made as runs/mlp-4/momentum/seed1/snapshots.h5",
    without_record: "nothing says what made it",
    shortened: "damaged: it has",
    upgraded: "other packages: numpy 1.0 then",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_a_file_that_is_not_what_it_was_is_made_again(copy, change):
    change(copy)
    done = snakemake(copy, "-n")
    printed = done.stdout + done.stderr
    assert "is made again: " + WRONG[change] in printed
    assert planned(copy)["train"] == {
        f"runs/mlp-4/momentum/seed0/{file}" for file in ("snapshots.h5", "history.csv")
    }


@pytest.mark.parametrize("name", ["history.csv", "snapshots.h5"])
def test_a_job_refuses_an_input_of_which_a_bit_was_flipped(copy, name):
    """Size and time are as they were, so that the plan sees nothing; who reads it names it."""
    damage(copy / SEED0 / name)
    assert planned(copy) == {}
    done = snakemake(copy, str(RESULTS / "tables" / "runs.csv"), "--forcerun", "table")
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"{SEED0 / name}: damaged: its sha256 is" in printed
    assert "Delete it and run again" in printed
    verified = verify(copy)
    assert verified.returncode == 1
    assert f"{name}: its sha256 is" in verified.stdout
    assert "moved to" in verify(copy, "--fix").stdout
    assert not (copy / SEED0 / name).exists()
    assert f"runs/mlp-4/momentum/seed0/{name}" in planned(copy)["train"]


def test_a_file_that_is_gone_spoils_no_plan(copy):
    """Its record is still there: as after a job that failed, or as we tell users to mend damage."""
    gone = SEED0 / "hessian.h5"
    (copy / gone).unlink()
    assert planned(copy) == {}  # nothing that is asked for is made from it any more
    assert planned(copy, str(gone)).keys() == {"hessian"}


def test_the_order_of_models_redoes_tables_and_figures_alone(copy):
    edit_config(copy, lambda config: config["experiments"]["architecture"]["models"].reverse())
    plan = planned(copy)
    assert "runs.csv" in " ".join(plan["table"])
    assert not {"train", "hessian", "landscape", "flatness", "ladder"} & plan.keys()


def verify(project, *arguments):
    return subprocess.run(
        [sys.executable, "scripts/verify.py", "--configfile", "tiny.yaml", *arguments],
        cwd=project,
        capture_output=True,
        text=True,
    )


def test_a_walk_says_what_is_whole_and_what_is_not(copy):
    assert verify(copy).returncode == 0
    left_over = copy / SEED0 / ".123.hessian.h5"
    left_over.write_bytes(b"half")
    (copy / RESULTS / "runs" / "mine.h5").write_bytes(b"of nobody")
    edit_config(copy, lambda config: config["figures"].update(font_size=9))
    upgraded(copy)
    found = verify(copy)
    assert found.returncode == 1
    assert "left over: 1" in found.stdout
    assert "runs/mlp-4/momentum/seed0/.123.hessian.h5" in found.stdout
    assert "orphaned: 1" in found.stdout
    assert "figures/verdicts.png: config.style.font_size was 8, is 9" in found.stdout
    assert "runs/mlp-4/momentum/seed0/snapshots.h5: other packages: numpy 1.0" in found.stdout
    lock = copy / ".snakemake" / "locks" / "0.input.lock"
    lock.write_text("")
    assert "a study runs here" in verify(copy, "--fix").stdout
    assert left_over.exists()
    lock.unlink()
    assert verify(copy, "--fix").returncode == 0
    assert not left_over.exists()
    assert (copy / RESULTS / "runs" / "mine.h5").exists()  # nobody's, and nobody's harm
