"""Exactly what is needed is rebuilt."""

import os
import shutil
import subprocess

from workflow.conftest import RESULTS, clone, edit_config, planned, run


def rules(jobs: set[tuple[str, str]]) -> set[str]:
    return {rule for rule, _ in jobs}


def is_figure(rule: str) -> bool:
    return rule.startswith("figure_")


def test_a_second_run_has_nothing_to_do(built):
    assert planned(built) == set()


def test_touched_files_rerun_nothing(copy):
    """Times alone do not matter: data, artefacts, tables, scripts and modules are all touched."""
    for folder in ("data", "results", "scripts", "workflow"):
        for path in (copy / folder).rglob("*"):
            os.utime(path)
    assert planned(copy) == set()


def test_a_figure_style_redraws_figures_only(copy):
    edit_config(copy, lambda config: config["figures"].update(font_size=9))
    jobs = rules(planned(copy))
    assert jobs
    assert all(map(is_figure, jobs))


def test_an_optimizer_reruns_its_own_runs_and_what_depends_on_them(copy):
    edit_config(copy, lambda config: config["optimizers"]["wild"].update(lr=1e29))
    jobs = planned(copy)
    of_runs = {job for job in jobs if job[0] in ("train", "hessian", "landscape", "flatness")}
    assert of_runs == {
        (rule, f"model=mlp-4, optimizer=wild, seed={seed}")
        for rule in ("train", "hessian", "landscape", "flatness")
        for seed in (0, 1)
    }
    others = {job for job in jobs - of_runs if not is_figure(job[0])}
    assert others == {
        ("table", f"table={table}")
        for table in (
            "history",
            "runs",
            "eigenvalues",
            "curvature",
            "spectrum",
            "landscape",
            "flatness",
        )
    } | {("dictionary", "")}
    architecture = {rule for rule, wildcards in jobs if wildcards == "experiment=architecture"}
    assert "figure_planes" not in architecture  # it reads surface files of the experiment alone


def test_a_new_seed_computes_that_seed_only(copy):
    edit_config(copy, lambda config: config["seeds"].append(7))
    trained = {job for job in planned(copy) if job[0] == "train"}
    assert len(trained) == 4
    assert all(wildcards.endswith("seed=7") for _, wildcards in trained)


def test_a_probe_setting_does_not_retrain(copy):
    edit_config(copy, lambda config: config["objective"].update(samples=50))
    jobs = rules(planned(copy))
    assert "train" not in jobs
    assert {"hessian", "landscape", "flatness", "trajectory", "connectivity"} <= jobs


def test_an_edited_module_reruns_the_stages_that_import_it(copy):
    with open(copy / "scripts" / "lossgeo" / "curvature.py", "a") as module:
        module.write("\n# edited\n")
    jobs = rules(planned(copy))
    assert {"hessian", "landscape", "table"} <= jobs  # landscape reads the eigenvectors
    assert not {"train", "flatness", "trajectory", "connectivity"} & jobs


def test_an_edited_figure_module_redraws_figures_only(copy):
    with open(copy / "scripts" / "lossgeo" / "plots.py", "a") as module:
        module.write("\n# edited\n")
    jobs = rules(planned(copy))
    assert jobs
    assert all(map(is_figure, jobs))


def test_an_edited_factory_reruns_its_own_model(copy):
    with open(copy / "my_models.py", "a") as module:
        module.write("\n# edited\n")
    trained = {wildcards for rule, wildcards in planned(copy) if rule == "train"}
    assert trained == {f"model=own, optimizer=momentum, seed={seed}" for seed in (0, 1)}


def test_changed_data_of_ones_own_retrains(copy):
    """The content of the files counts, under the same names and whatever their times."""
    path = copy / "data" / "t10k-labels-idx1-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([(content[-1] + 1) % 3]))
    os.utime(path, (0, 0))
    assert len([job for job in planned(copy) if job[0] == "train"]) == 8


def test_one_figure_can_be_asked_for_by_name_without_torch(copy, without_torch):
    target = RESULTS / "figures" / "architecture" / "planes.pdf"
    before = (copy / target).read_bytes()
    edit_config(copy, lambda config: config["figures"].update(font_size=9))
    # a factory is checked by building it, which takes torch: figures of this project do not
    edit_config(copy, lambda config: drop_own(config))
    edit_config(copy, lambda config: config["experiments"].pop("optimizer"))
    edit_config(copy, lambda config: config["optimizers"].update(wild=None))
    printed = run(copy, str(target), env=without_torch)
    assert "1 of 1 steps (100%) done" in printed
    assert (copy / target).read_bytes() != before


def drop_own(config: dict) -> None:
    config["models"]["own"] = None
    config["experiments"]["architecture"]["models"].remove("own")
    config["experiments"]["optimizer"] = None


def test_a_fresh_clone_with_the_results_copied_in_has_nothing_to_do(built, tmp_path):
    project = clone(tmp_path / "clone")
    shutil.rmtree(project / "data")
    for folder in ("data", "results"):
        subprocess.run(["cp", "-a", built / folder, project / folder], check=True)
    assert not (project / ".snakemake").exists()
    assert planned(project) == set()
