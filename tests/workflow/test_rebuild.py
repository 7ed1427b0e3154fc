"""Exactly what is needed is rebuilt."""

import os
import shutil
import subprocess

import pytest

from workflow.conftest import RESULTS, clone, edit_config, planned, run

RUN_FILES = {
    "train": ("snapshots.h5", "history.csv"),
    "hessian": ("hessian.h5",),
    "ladder": ("ladder.h5",),
    "landscape": ("landscape.h5",),
    "flatness": ("flatness.h5",),
    "published": ("published.h5",),
}
CELLS = ("mlp-4/momentum", "cnn-2/momentum", "own/momentum", "mlp-4/wild")
RUNS = [f"{cell}/seed{seed}" for cell in CELLS for seed in (0, 1)]


JUDGED = {"verdicts", "figure_verdicts", "figure_forest"}  # what follows from any table of claims


def is_figure(rule: str) -> bool:
    return rule.startswith("figure_")


def test_a_second_run_has_nothing_to_do(copy):
    assert planned(copy) == {}


def test_touched_files_rerun_nothing(copy):
    """Times alone do not matter: data, artefacts, tables, scripts and modules are all touched."""
    for folder in ("data", "results", "scripts", "workflow"):
        for path in (copy / folder).rglob("*"):
            os.utime(path)
    assert planned(copy) == {}


def test_a_figure_style_redraws_figures_only(copy):
    edit_config(copy, lambda config: config["figures"].update(font_size=9))
    plan = planned(copy)
    assert sum(map(len, plan.values())) == 74
    assert all(map(is_figure, plan))


def test_an_optimizer_reruns_its_own_runs_and_what_depends_on_them(copy):
    edit_config(copy, lambda config: config["optimizers"]["wild"].update(lr=1e29))
    plan = planned(copy)
    for rule, files in RUN_FILES.items():
        assert plan[rule] == {
            f"runs/mlp-4/wild/seed{seed}/{file}" for seed in (0, 1) for file in files
        }
    for rule in ("alignment", "curve", "connectivity", "planes"):
        assert plan[rule] == {f"pairs/mlp-4/wild/seed0-seed1/{rule}.h5"}
    assert not {"trajectory", "fork"} & plan.keys()
    assert {"tables/trajectory.csv", "tables/instability.csv"}.isdisjoint(plan["table"])
    assert "figures/optimizer/planes.png" in plan["figure_planes"]
    # the other experiment's surfaces are its own: nothing of theirs has changed
    assert "figures/architecture/planes.png" not in plan["figure_planes"]


def test_a_new_seed_computes_that_seed_only(copy):
    edit_config(copy, lambda config: config["seeds"].append(7))
    plan = planned(copy)
    for rule, files in RUN_FILES.items():
        assert len(plan[rule]) == len(CELLS) * len(files)
        assert all("/seed7/" in file for file in plan[rule])
    assert not {"connectivity", "curve"} & plan.keys()  # a third seed has no partner yet
    # but it is the third point of planes, and there it lies aligned
    assert len(plan["planes"]) == len(CELLS)
    assert plan["alignment"] == {f"pairs/{cell}/seed0-seed7/alignment.h5" for cell in CELLS}


def test_how_deep_a_minimum_counts_remakes_the_table_alone(copy):
    edit_config(copy, lambda config: config["landscape"].update(persistence=0.1))
    plan = planned(copy)
    assert plan.keys() <= {"table", "dictionary"} | JUDGED
    assert plan["table"] == {"tables/landscape.csv"}


MATCHED = {  # the runs with a point `matched`, which training finds on the objective
    f"runs/{run}/{file}" for run in RUNS for file in RUN_FILES["train"] if "wild" not in run
}


def test_the_objective_retrains_the_runs_with_a_matched_point_and_no_others(copy):
    edit_config(copy, lambda config: config["objective"].update(samples=50))
    plan = planned(copy)
    assert plan["train"] == MATCHED
    assert {"hessian", "landscape", "flatness", "trajectory", "connectivity"} <= plan.keys()
    assert "runs/mlp-4/wild/seed0/hessian.h5" in plan["hessian"]
    # the ladder has samples of its own
    assert not {file for file in plan["ladder"] if "wild" in file}


def test_the_matched_loss_retrains_the_runs_with_a_matched_point_and_no_others(copy):
    edit_config(copy, lambda config: config["training"].update(matched_loss=0.9))
    plan = planned(copy)
    assert plan["train"] == MATCHED
    assert not {file for rule in RUN_FILES for file in plan[rule] if "wild" in file}


def test_a_probe_setting_does_not_retrain_where_nothing_is_matched(fresh):
    def change(config):
        config["seeds"] = [0]
        config["experiments"]["architecture"] |= {
            "models": ["mlp-4"],
            "points": ["final"],
            "stages": ["flatness"],
        }
        config["experiments"]["optimizer"] = None
        config["models"] |= {"cnn-2": None, "own": None}
        config["optimizers"]["wild"] = None

    edit_config(fresh, change)
    flat = str(RESULTS / "runs/mlp-4/momentum/seed0/flatness.h5")
    run(fresh, flat)
    edit_config(fresh, lambda config: config["objective"].update(samples=50))
    assert planned(fresh, flat).keys() == {"flatness"}
    edit_config(fresh, lambda config: config["objective"].update(samples=60))
    edit_config(fresh, lambda config: config["training"].update(matched_loss=0.9))
    assert planned(fresh, flat) == {}


def other_subsets(project):
    def other(config):
        for name in ("architecture", "optimizer"):
            config["experiments"][name]["ladder"].update(samples=[30, 40])

    edit_config(project, other)


def another_tolerance(project):
    edit_config(project, lambda config: config["ladder"].update(tolerance=0.01))


def edited_ladder(project):
    with open(project / "scripts" / "lossgeo" / "ladder.py", "a") as module:
        module.write("\nEDITED = True\n")


@pytest.mark.parametrize("change", [other_subsets, another_tolerance, edited_ladder])
def test_a_change_of_the_ladder_reruns_the_ladder_and_what_is_made_of_it(copy, change):
    change(copy)
    plan = planned(copy)
    assert plan.keys() == {"ladder", "table", "dictionary", "figure_ladder"} | JUDGED
    assert plan["ladder"] == {f"runs/{run}/ladder.h5" for run in RUNS}
    assert plan["table"] == {"tables/ladder.csv", "tables/kernels.csv"}
    assert plan["figure_ladder"] == {
        f"figures/{experiment}/ladder.{format}"
        for experiment in ("architecture", "optimizer")
        for format in ("pdf", "png")
    }


def test_published_surfaces_of_one_more_seed_leave_the_other_seeds_as_they_are(copy):
    edit_config(copy, lambda config: config["published"].update(landscapes=2))
    plan = planned(copy)
    figures = {"figure_published", "figure_ladder"}
    assert plan.keys() == {"published", "table", "dictionary"} | figures | JUDGED
    assert len(plan["published"]) == len(CELLS)
    assert all("/seed1/" in file for file in plan["published"])
    assert plan["table"] == {"tables/published.csv", "tables/kernels.csv"}


PATHS = {"connectivity", "table", "dictionary", "figure_connectivity", "figure_barriers"}
PATHS |= {"figure_widths", "figure_taxonomy"} | JUDGED
RUNGS_CHANGES = {  # change -> what is done again beside the profiles, their tables and figures
    "other curves": (
        lambda config: config["curve"].update(lr=0.01),
        PATHS | {"curve", "planes", "figure_pair_planes"},
    ),
    "a finer path": (
        lambda config: config["connectivity"].update(points=7),
        PATHS | {"figure_instability"},
    ),
    "more starts": (
        lambda config: config["alignment"].update(starts=3),
        PATHS | {"alignment", "curve", "planes", "figure_pair_planes"},
    ),
    "straight lines alone": (
        lambda config: config["connectivity"].update(rungs=["line"]),
        PATHS | {"planes", "figure_pair_planes"},
    ),
    "more starts, where no curve is aligned": (
        lambda config: (
            config["connectivity"].update(rungs=["line", "aligned", "curve"]),
            config["alignment"].update(starts=3),
        ),
        PATHS | {"alignment", "curve", "planes", "figure_pair_planes"},
    ),
    "a finer plane": (
        lambda config: config["connectivity"]["plane"].update(points=7),
        {"planes", "figure_pair_planes", "table", "dictionary"},  # the table of kernels
    ),
    "other limits": (
        lambda config: config["connectivity"].update(limits={"loss": 0.1}),
        (PATHS | {"figure_instability"}) - {"connectivity", "figure_connectivity"} - JUDGED,
    ),
    "one more fork": (
        lambda config: config["instability"].update(runs=2),
        {"fork", "connectivity", "table", "dictionary", "figure_instability"},
    ),
}


@pytest.mark.parametrize("name", RUNGS_CHANGES)
def test_a_change_of_one_rung_redoes_that_rung_and_what_is_made_of_it(copy, name):
    change, rules = RUNGS_CHANGES[name]
    edit_config(copy, change)
    plan = planned(copy)
    assert not {"train", "hessian"} & plan.keys()
    assert plan.keys() == rules
    if name == "one more fork":
        assert plan["fork"] == {f"runs/mlp-4/momentum/seed1/fork{k}.h5" for k in (0, 1)}
        assert plan["connectivity"] == {
            f"pairs/mlp-4/momentum/seed1-fork{k}/connectivity.h5" for k in (0, 1)
        }


def test_other_points_of_pairs_redraw_what_is_about_pairs(copy):
    """Forks that leave after the first epoch are still their runs there: they are dropped."""
    edit_config(copy, lambda config: config["connectivity"].update(at=["epoch1"]))
    edit_config(copy, lambda config: config["instability"].update(epochs=[0]))
    plan = planned(copy)
    assert {"alignment", "curve", "connectivity", "planes", "figure_pair_planes"} <= plan.keys()
    assert not {"train", "hessian", "fork", "figure_training", "figure_lines"} & plan.keys()


def test_the_split_of_the_objective_is_the_ladders_too(copy):
    edit_config(copy, lambda config: config["objective"].update(split="test"))
    assert len(planned(copy)["ladder"]) == len(RUNS)


def test_an_edited_module_reruns_the_stages_that_import_it(copy):
    with open(copy / "scripts" / "lossgeo" / "curvature.py", "a") as module:
        module.write("\nEDITED = True\n")
    plan = planned(copy)
    # landscape reads the eigenvectors
    assert {"hessian", "landscape", "table"} <= plan.keys()
    assert not {"train", "ladder", "flatness", "trajectory", "connectivity"} & plan.keys()


def test_an_edited_figure_module_redraws_figures_only(copy):
    with open(copy / "scripts" / "lossgeo" / "plots" / "panels.py", "a") as module:
        module.write("\nEDITED = True\n")
    plan = planned(copy)
    assert plan
    assert all(map(is_figure, plan))


def test_an_edited_factory_reruns_its_own_model(copy):
    with open(copy / "my_models.py", "a") as module:
        module.write("\nEDITED = True\n")
    assert planned(copy)["train"] == {
        f"runs/own/momentum/seed{seed}/{file}" for seed in (0, 1) for file in RUN_FILES["train"]
    }


def test_a_device_remakes_nothing_and_labels_of_a_users_model_its_tables_and_figures(copy):
    edit_config(copy, lambda config: config.update(device="cpu"))
    assert planned(copy) == {}
    edit_config(copy, lambda config: config["models"]["own"].update(family="deep", width=5))
    plan = planned(copy)
    assert all(is_figure(rule) for rule in plan.keys() - {"table", "dictionary"} - JUDGED)
    assert "tables/runs.csv" in plan["table"]


def test_changed_data_of_ones_own_retrains(copy):
    """The content of the files counts, under the same names and whatever their times."""
    path = copy / "data" / "stripes" / "t10k-labels-idx1-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([(content[-1] + 1) % 3]))
    os.utime(path, (0, 0))
    assert len(planned(copy)["train"]) == len(RUNS) * 2


def test_one_figure_can_be_asked_for_by_name_without_torch(copy, without_torch):
    """(A user's own model is built once per call to check it, which takes torch: not here.)"""

    def without_own_model(config: dict) -> None:
        config["models"]["own"] = None
        config["experiments"]["architecture"]["models"].remove("own")
        config["figures"].update(font_size=9)

    target = RESULTS / "figures" / "architecture" / "planes.pdf"
    before = (copy / target).read_bytes()
    edit_config(copy, without_own_model)
    printed = run(copy, str(target), env=without_torch)
    assert "1 of 1 steps (100%) done" in printed
    assert (copy / target).read_bytes() != before


def test_a_fresh_clone_with_the_results_copied_in_has_nothing_to_do(built, tmp_path):
    project = clone(tmp_path / "clone")
    shutil.rmtree(project / "data")
    for folder in ("data", "results"):
        subprocess.run(["cp", "-a", built / folder, project / folder], check=True)
    assert not (project / ".snakemake" / "metadata").exists()
    assert planned(project) == {}


def test_a_changed_registry_reruns_verdicts_and_their_figures_alone(copy):
    registry = copy / "claims.yaml"
    registry.write_text(registry.read_text().replace("tau: 0.2 ", "tau: 0.3 "))
    plan = planned(copy)
    assert plan.keys() == JUDGED | {"dictionary"}
    assert plan["verdicts"] == {"tables/endpoints.csv", "tables/verdicts.csv"}
