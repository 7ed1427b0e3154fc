"""Artefacts: the same content is the same bytes, open to anyone's tools, whole or not there."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import xarray

from lossgeo import store
from lossgeo.store import Group, Variable


def surface() -> dict[str, Group]:
    rng = np.random.default_rng(0)
    return {
        "final/planes": Group(
            {
                "alpha": Variable(("alpha",), np.linspace(-1, 1, 5), "1", "offset along alpha"),
                "beta": Variable(("beta",), np.linspace(-2, 2, 3), "1", "offset along beta"),
                "loss": Variable(
                    ("plane", "alpha", "beta"), rng.normal(size=(2, 5, 3)), "nats", "cross-entropy"
                ),
            },
            {"status": "ok", "step": 12, "trace": 0.5},
        ),
        "/": Group({"step": Variable(("snapshot",), np.arange(4), "1", "optimizer steps")}),
    }


ROOT = {"model": "mlp-4", "seed": 3, "diverged": False}


@pytest.fixture
def path(tmp_path):
    store.write(tmp_path / "a.h5", surface(), ROOT)
    return tmp_path / "a.h5"


def test_what_was_written_is_read_back(path):
    for name, group in surface().items():
        found = store.read(path, name)
        assert found.attributes.items() >= group.attributes.items()
        for key, variable in group.variables.items():
            assert found.variables[key].dims == variable.dims
            assert found.variables[key].units == variable.units
            assert found.variables[key].description == variable.description
            np.testing.assert_array_equal(found.variables[key].values, variable.values)
            assert found.variables[key].values.dtype == variable.values.dtype


def test_attributes_are_plain_python_values(path):
    assert store.attributes(path) == ROOT
    assert {k: type(v) for k, v in store.attributes(path).items()} == {
        "model": str,
        "seed": int,
        "diverged": bool,
    }
    found = store.read(path, "final/planes").attributes
    assert {type(v) for v in found.values()} <= {str, int, float}


def test_only_the_variables_asked_for_are_read(path):
    assert set(store.read(path, "final/planes", names=["loss"]).variables) == {"loss"}


def test_one_row_is_read_alone(path):
    np.testing.assert_array_equal(
        store.read_row(path, "final/planes/loss", 1),
        surface()["final/planes"].variables["loss"].values[1],
    )


def test_groups_are_listed(path):
    assert store.subgroups(path) == ["final"]
    assert store.subgroups(path, "final") == ["planes"]


def test_values_that_are_not_finite_are_kept_as_they_are(tmp_path):
    values = np.array([np.nan, np.inf, -np.inf, 0.0])
    store.write(
        tmp_path / "a.h5", {"g": Group({"v": Variable(("i",), values, "nats", "losses")})}, {}
    )
    np.testing.assert_array_equal(store.read(tmp_path / "a.h5", "g").variables["v"].values, values)


def test_a_file_opens_in_xarray_with_dimensions_coordinates_and_units(path):
    with xarray.open_dataset(path, group="final/planes", engine="h5netcdf") as data:
        assert data["loss"].dims == ("plane", "alpha", "beta")
        assert set(data.coords) == {"plane", "alpha", "beta"}
        np.testing.assert_array_equal(data["alpha"], np.linspace(-1, 1, 5))
        np.testing.assert_array_equal(data["plane"], [0, 1])
        assert data["loss"].attrs["units"] == "nats"
        assert data["loss"].attrs["long_name"] == "cross-entropy"
        assert data.attrs["status"] == "ok"
        row = data["loss"].sel(alpha=0.5, plane=1)
        np.testing.assert_array_equal(row, surface()["final/planes"].variables["loss"].values[1, 3])


def test_the_root_opens_in_xarray_too(path):
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        assert data["step"].dims == ("snapshot",)
        assert data.attrs["model"] == "mlp-4"
        assert not data.attrs["diverged"]


def test_the_same_content_gives_the_same_bytes(tmp_path, path):
    store.write(tmp_path / "b.h5", surface(), ROOT)
    assert (tmp_path / "b.h5").read_bytes() == path.read_bytes()


def test_other_content_gives_other_bytes(tmp_path, path):
    store.write(tmp_path / "b.h5", surface(), ROOT | {"seed": 4})
    assert (tmp_path / "b.h5").read_bytes() != path.read_bytes()


def broken() -> dict[str, Group]:
    variable = Variable(("i", "j"), np.zeros(3), "1", "one axis, two names")
    return surface() | {"broken": Group({"v": variable})}


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match=r"v: 1 axes, 2 dimension names"):
        store.write(tmp_path / "a.h5", broken(), ROOT)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file_as_it_was(tmp_path, path):
    before = path.read_bytes()
    with pytest.raises(ValueError, match="dimension names"):
        store.write(path, broken(), ROOT)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_dimension_has_one_length(tmp_path):
    group = Group(
        {
            "a": Variable(("i",), np.zeros(3), "1", "three"),
            "b": Variable(("i",), np.zeros(4), "1", "four"),
        }
    )
    with pytest.raises(ValueError, match=r"b: dimension i is 4 here, 3 elsewhere"):
        store.write(tmp_path / "a.h5", {"g": group}, {})


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    with store.whole_or_not(tmp_path / "a.txt") as beside:
        beside.write_text("half")
        assert not (tmp_path / "a.txt").exists()
        assert beside.suffix == ".txt", "savefig and others go by the suffix"
    assert (tmp_path / "a.txt").read_text() == "half"
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_a_table_is_read_back_with_its_numbers_and_gaps(tmp_path):
    table = pd.DataFrame({"model": ["a", "b"], "loss": [0.1 + 0.2, np.nan], "seed": [0, 1]})
    store.write_csv(table, tmp_path / "t.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), table, check_exact=True)
    assert b"\r" not in (tmp_path / "t.csv").read_bytes()


def provenance() -> dict:
    return store.provenance(
        {"b": 1, "a": {"points": [1, 2]}},
        {"train.py": "ab12"},
        {"snapshots": "cd34"},
        packages=("scipy",),
        model="mlp-4",
        seed=0,
    )


def test_provenance_says_what_the_content_depends_on():
    found = provenance()
    assert (found["model"], found["seed"]) == ("mlp-4", 0)
    assert json.loads(found["config"]) == {"a": {"points": [1, 2]}, "b": 1}
    assert json.loads(found["code"]) == {"train.py": "ab12"}
    assert json.loads(found["inputs"]) == {"snapshots": "cd34"}
    versions = json.loads(found["versions"])
    assert versions["numpy"] == np.__version__
    assert {"python", "torch", "h5py", "scipy"} <= set(versions)


def test_provenance_holds_no_time_host_or_path(monkeypatch, tmp_path):
    """The same content on another day, in another folder, is the same bytes."""
    here = provenance()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOSTNAME", "elsewhere")
    assert provenance() == here
    text = json.dumps(here)
    assert str(tmp_path) not in text
    assert not re.search(r"\d\d:\d\d|20\d\d-\d\d", text)


def test_provenance_does_not_depend_on_the_order_of_keys():
    one = store.provenance({"a": 1, "b": 2}, {"x": "1", "y": "2"}, {})
    two = store.provenance({"b": 2, "a": 1}, {"y": "2", "x": "1"}, {})
    assert one == two


@pytest.mark.parametrize("shape", [(40,), (3, 50_000), (1000, 2), (7, 5, 3)])
def test_a_flipped_bit_of_the_numbers_is_found_on_reading(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=shape)
    dims = tuple("abc"[: len(shape)])
    path = tmp_path / "a.h5"
    store.write(path, {"/": Group({"x": Variable(dims, values, "1", "numbers")})}, {})
    np.testing.assert_array_equal(store.read(path).variables["x"].values, values)
    content = bytearray(path.read_bytes())
    place = content.index(values.ravel()[-2].tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="read"):
        store.read(path)
