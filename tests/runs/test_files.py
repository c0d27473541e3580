"""Files are whole or not there, and hold what was put in."""

from __future__ import annotations

import csv
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codream_secure import files
from codream_secure.errors import ConfigError

VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers())
# csv joins lists as a;b;c and has no types: numbers and texts without a carriage return come back as their text.
CELLS = st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["C"]), min_size=1)
FUNCTION_SCOPE = [HealthCheck.function_scoped_fixture]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failing_write_leaves_the_old_content_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result.json"
    files.write_text(path, "old")

    def fail(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_cleans_up_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(tmp_path / "new.bin", b"content")
    assert not list(tmp_path.iterdir())


def test_rows_that_fail_half_way_leave_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.write_jsonl(path, [{"round": 0}])

    def rows() -> Iterator[dict[str, object]]:
        yield {"round": 1}
        yield {"round": object()}

    with pytest.raises(TypeError, match="not JSON serializable"):
        files.write_jsonl(path, rows())
    assert path.read_text() == '{"round": 0}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_at_the_moment_of_the_swap_the_new_file_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen, swap = tmp_path / "weights.bin", [], os.replace

    def look(source: str, target: Path) -> None:
        seen.append((Path(source).parent, Path(source).read_bytes(), target.exists()))
        swap(source, target)

    monkeypatch.setattr(os, "replace", look)
    files.write_bytes(path, b"whole" * 100_000)
    assert seen == [(tmp_path, b"whole" * 100_000, False)], "a rename is atomic only within one folder"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_any_new_file(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        files.write_text(tmp_path / "written", "")
        (tmp_path / "usual").touch()
        assert os.umask(umask) == umask, "the umask is put back"
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("written", "usual")}
    assert modes == {0o666 & ~umask}


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b" / "ü.txt", "ü")
    assert (tmp_path / "a" / "b" / "ü.txt").read_bytes() == "ü".encode()


@settings(suppress_health_check=FUNCTION_SCOPE, deadline=None, max_examples=30)
@given(rows=st.lists(st.dictionaries(st.text(), VALUES)))
def test_json_comes_back_as_it_was(rows: list[dict[str, object]], tmp_path: Path) -> None:
    files.write_json(tmp_path / "all.json", rows)
    assert json.loads((tmp_path / "all.json").read_text(encoding="utf-8")) == rows
    files.write_jsonl(tmp_path / "rows.jsonl", rows)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == rows


@settings(suppress_health_check=FUNCTION_SCOPE, deadline=None, max_examples=30)
@given(rows=st.lists(st.dictionaries(st.sampled_from("abcd"), CELLS, min_size=1), min_size=1))
def test_csv_comes_back_as_text(rows: list[dict[str, object]], tmp_path: Path) -> None:
    files.write_csv(tmp_path / "rows.csv", rows)
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as stream:
        found = list(csv.DictReader(stream))
    columns = {key for row in rows for key in row}
    assert found == [{key: str(row.get(key, "")) for key in columns} for row in rows]


def test_csv_columns_keep_the_order_of_first_appearance_and_lists_are_joined(tmp_path: Path) -> None:
    files.write_csv(tmp_path / "rows.csv", [{"round": 0, "clients": [0.5, 0.25]}, {"loss": 1.5, "round": 1}])
    assert (tmp_path / "rows.csv").read_text() == "round,clients,loss\n0,0.5;0.25,\n1,,1.5\n"


def test_names_of_files_and_new_folders_are_flushed_after_what_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[str, bool]] = []
    path = tmp_path / "one" / "two" / "file"
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append((os.readlink(f"/proc/self/fd/{descriptor}"), path.exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_bytes(path, b"content")
    folders = [str(tmp_path), str(tmp_path / "one"), str(path.parent)]
    assert [name for name, _ in flushed if name in folders] == folders
    assert flushed[-1] == (str(path.parent), True)


def test_a_file_may_be_for_its_owner_only(tmp_path: Path) -> None:
    files.write_jsonl(tmp_path / "rows", [{}], mode=files.PRIVATE)
    assert stat.S_IMODE((tmp_path / "rows").stat().st_mode) == 0o600


def test_a_folder_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with files.held(tmp_path):
        with pytest.raises(ConfigError, match=f"{tmp_path}' is being written to by another run"), files.held(tmp_path):
            pass
        (tmp_path / "within").mkdir()
        with files.held(tmp_path / "within"):
            pass
    with files.held(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["within"]


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    program = f"""
import pathlib, time
from codream_secure import files
with files.held(pathlib.Path({str(tmp_path)!r})):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError), files.held(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    with files.held(tmp_path):
        pass
