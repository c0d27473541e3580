"""The transport is light: no torch, no gRPC until it is used, and one clear error where that is missing."""

from __future__ import annotations

import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from codream_secure.deployment.streams import Tls
from codream_secure.deployment.streams.certificates import load, make_certificates
from codream_secure.errors import ConfigError, IdentityError


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_it_is_imported_without_torch_or_grpc() -> None:
    loaded = run(
        "import sys, codream_secure.deployment.streams, codream_secure.deployment.streams.certificates\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    ).split()
    assert "protocols" in loaded
    assert not {"torch", "torchvision", "grpc", "flwr", "tenseal", "pydantic"} & set(loaded)


def test_a_node_that_is_only_asked_for_keys_loads_no_torch() -> None:
    loaded = run(
        "import sys, codream_secure.deployment.flower_apps\nprint(*{name.split('.')[0] for name in sys.modules})"
    ).split()
    assert "pydantic" in loaded
    assert not {"torch", "torchvision", "grpc"} & set(loaded)


def test_where_grpc_is_missing_an_error_names_the_extra() -> None:
    program = """
import sys
sys.modules["grpc"] = None
from codream_secure.deployment.streams.library import load_grpc
from codream_secure.errors import ConfigError, IdentityError
try:
    load_grpc()
except ConfigError as error:
    print(error)
"""
    assert "codream-secure[flower]" in run(program)


def test_certificates_are_for_their_owner_only(tmp_path: Path) -> None:
    make_certificates(tmp_path / "tls", ["alice"])
    files = sorted((tmp_path / "tls").iterdir())
    assert [path.name for path in files] == [
        "alice.key",
        "alice.pem",
        "ca.key",
        "ca.pem",
        "server.key",
        "server.pem",
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_private_keys_are_neither_shown_nor_pickled(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["alice"])
    tls = load(tmp_path, "alice")
    assert "PRIVATE" not in repr(tls)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(tls)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"authority=.*ca\.pem.* cannot be read"):
        load(tmp_path, "alice")
    (tmp_path / "ca.pem").write_text("nothing")
    (tmp_path / "ca.pem").chmod(0o600)
    with pytest.raises(ConfigError, match="no PEM file"):
        Tls.from_files(authority=tmp_path / "ca.pem", certificate=tmp_path / "ca.pem", private_key=tmp_path / "ca.pem")


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_private_key_that_others_can_read_is_refused(mode: int, tmp_path: Path) -> None:
    make_certificates(tmp_path, ["alice"])
    (tmp_path / "alice.key").chmod(mode)
    with pytest.raises(IdentityError, match="chmod 600"):
        load(tmp_path, "alice")
