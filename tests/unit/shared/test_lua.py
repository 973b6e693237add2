"""Redis scripts are read from their files whole, with every placeholder filled in, and none is left behind."""

from itertools import takewhile
from pathlib import Path

import pytest

from shared.lua import load_script
from tests import ROOT

SCRIPTS = sorted((ROOT / "shared").rglob("*.lua"))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "common.lua").write_text("-- Common.\nlocal most = @MOST@\n")
    path = tmp_path / "script.lua"
    path.write_text("-- Asks.\nreturn {most, @TEXT@}\n")
    return path


def test_flags_come_first_then_what_is_included(script: Path) -> None:
    source = load_script(
        script, flags=("allow-oom", "no-writes"), include=("common.lua",), constants={"MOST": 3, "TEXT": "it's \\ so"}
    )
    assert source.splitlines() == [
        "#!lua flags=allow-oom,no-writes",
        "-- Common.",
        "local most = 3",
        "-- Asks.",
        "return {most, 'it\\'s \\\\ so'}",
    ]


def test_a_script_without_flags_still_names_its_engine(script: Path) -> None:
    assert load_script(script, constants={"TEXT": ""}).startswith("#!lua\n-- Asks.\n")


@pytest.mark.parametrize("constants", [{}, {"TEXT": "a", "MOST": 1}, {"TXT": "a"}])
def test_a_placeholder_without_constant_and_a_constant_without_placeholder_are_refused(
    script: Path, constants: dict[str, int | str]
) -> None:
    with pytest.raises(ValueError, match=r"script\.lua: placeholders and constants differ in "):
        load_script(script, constants=constants)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_script_documents_what_it_takes_and_returns(path: Path) -> None:
    header = "".join(takewhile(lambda line: line.startswith("--"), path.read_text().splitlines()))
    assert [word for word in ("KEYS", "ARGV", "Returns") if word not in header] == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_arguments_have_names_where_they_are_used(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("--")]
    assert [line for line in lines if "ARGV[" in line and not line.strip().startswith("local ")] == []
