"""Surfaces in tiles: the bytes of one job, and only what is missing is made again."""

import shutil

from lossgeo import store
from workflow.conftest import RESULTS, edit_config, planned, run, snakemake

RUN = RESULTS / "runs" / "mlp-4" / "momentum" / "seed0"
FILE = RUN / "landscape.h5"
NAMES = {f"{RUN.relative_to(RESULTS)}/tiles/{tile}-of-4.h5" for tile in (1, 2, 3, 4)}


def cut(project, tiles: int) -> None:
    edit_config(project, lambda config: config["landscape"].update(tiles=tiles))


def test_surfaces_in_tiles_are_those_of_one_job_and_resume_where_one_is_missing(fresh, tmp_path):
    def change(config):
        config["estimator"] = "full"
        config["landscape"]["planes"]["points"] = 11  # more than go through a network together

    edit_config(fresh, change)
    run(fresh, str(FILE))
    untiled = (fresh / FILE).read_bytes()
    assert not (fresh / RUN / "tiles").exists()

    cut(fresh, 4)
    assert planned(fresh, str(FILE)) == {}, "how surfaces are cut makes no other file"
    (fresh / FILE).unlink()
    landscape = {"landscape": {str(FILE.relative_to(RESULTS))}}
    assert planned(fresh, str(FILE)) == landscape | {"tile": NAMES}
    run(fresh, str(FILE))
    assert (fresh / FILE).read_bytes() == untiled
    assert planned(fresh, str(FILE)) == {}
    files = [fresh / RESULTS / name for name in sorted(NAMES)]
    final = [path for path in files if "final" in store.subgroups(path)]
    assert len([path for path in final if "planes" in store.subgroups(path, "final")]) > 1

    (fresh / FILE).unlink()
    missing = fresh / RUN / "tiles" / "2-of-4.h5"
    missing.unlink()
    assert planned(fresh, str(FILE)) == landscape | {
        "tile": {f"{RUN.relative_to(RESULTS)}/tiles/2-of-4.h5"}
    }
    run(fresh, str(FILE))
    assert (fresh / FILE).read_bytes() == untiled

    # tiles are files of the study, and those of another number are not
    done = snakemake(fresh, str(RUN / "tiles" / "1-of-3.h5"), "--dry-run")
    assert done.returncode != 0
    assert "found the tile '1-of-3', expected one of: 1-of-4" in done.stdout + done.stderr
    shutil.rmtree(fresh / RUN / "tiles")
    cut(fresh, 1)
    assert planned(fresh, str(FILE)) == {}
