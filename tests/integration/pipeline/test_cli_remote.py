"""`lookalike search --url` where no answer comes: what is said while it waits, and at the end."""

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.main import main
from tests.integration.conftest import PHOTO

WAITS = "has not answered yet: trying for"


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("pipeline.cli.remote._TIMEOUT_S", 2.0)
    monkeypatch.setattr("pipeline.cli.remote._SILENT_S", 0.1)
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    return str(tmp_path / "a.jpg")


def test_where_nothing_listens_it_says_what_it_waits_for(photo: str, unused_port: int) -> None:
    url = f"http://127.0.0.1:{unused_port}"
    told = CliRunner().invoke(main, ["search", photo, "--url", url])
    waits, error = told.stderr.splitlines()
    assert told.exit_code == 1
    assert waits == f"{url} {WAITS} 2 s more"
    assert error.startswith(f"error: {url} cannot be reached")


def test_a_service_that_hangs_is_told_as_such(photo: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = CliRunner().invoke(main, ["search", photo, "--url", f"http://127.0.0.1:{silent.getsockname()[1]}"])
    waits, error = told.stderr.splitlines()
    assert WAITS in waits
    assert "took the request and has not answered in time" in error
