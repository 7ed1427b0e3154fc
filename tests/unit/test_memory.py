import pytest

from lossgeo import memory


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    return tmp_path / ".snakemake" / "lossgeo"


def counted():
    calls = []

    def work():
        calls.append(1)
        return {"calls": len(calls)}

    return work


def test_what_was_worked_out_is_not_worked_out_again(folder):
    work = counted()
    assert memory.recall("a", work) == {"calls": 1}
    assert memory.recall("a", work) == {"calls": 1}
    assert memory.recall("b", work) == {"calls": 2}
    assert {path.name for path in folder.iterdir()} == {"a.json", "b.json"}


def test_the_first_value_is_of_the_same_kinds_as_later_ones(folder):
    assert [memory.recall("a", lambda: (1, 2)) for _ in range(2)] == [[1, 2], [1, 2]]


def test_what_cannot_be_read_is_worked_out_again(folder):
    work = counted()
    memory.recall("a", work)
    (folder / "a.json").write_text('{"calls": ')
    assert memory.recall("a", work) == {"calls": 2}
    assert memory.recall("a", work) == {"calls": 2}


def test_nothing_is_kept_of_work_that_failed(folder):
    with pytest.raises(ZeroDivisionError):
        memory.recall("a", lambda: 1 / 0)
    assert memory.recall("a", counted()) == {"calls": 1}


def test_nothing_is_kept_where_snakemake_has_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work = counted()
    memory.recall("a", work)
    assert memory.recall("a", work) == {"calls": 2}
    assert not any(tmp_path.iterdir())


def test_a_key_tells_parts_and_their_order_apart():
    keys = {
        memory.key_of(*parts)
        for parts in (["ab"], ["a", "b"], ["b", "a"], ["", "ab"], ["ab", ""], [b"abc"])
    }
    assert len(keys) == 6
    assert memory.key_of("ab") == memory.key_of(b"ab")
