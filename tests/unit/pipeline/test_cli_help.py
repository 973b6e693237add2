"""`--help` teaches and shells complete: each verb has examples that it would take, real shells take the scripts."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from pipeline.cli.main import main
from tests import ROOT
from tests.documents.commands import _examples, verbs

VERBS = dict(verbs())


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_examples_that_it_takes(name: str) -> None:
    command = VERBS[name]
    examples = _examples(command)
    assert examples
    known = {option for parameter in command.params for option in parameter.opts}
    for example in examples:
        assert re.search(rf"\blookalike {name}\b", example)
        typed = re.split(r"\blookalike ", example)[1].split("|")[0].split("#")[0]
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", typed)) <= known


@pytest.mark.parametrize("name", ["", *VERBS])
def test_help_is_told_without_a_service(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", "/nonexistent/lookalike")
    result = CliRunner().invoke(main, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert "Exit codes:" in result.output if not name else "Examples:" in result.output


def test_the_exit_codes_are_told_of_and_2_is_wrong_usage() -> None:
    output = CliRunner().invoke(main, ["--help"]).output
    assert re.findall(r"^    (\d+) ", output, re.MULTILINE) == ["0", "1", "2", "3", "130"]
    assert CliRunner().invoke(main, ["burn"]).exit_code == 2


def script(shell: str) -> str:
    result = CliRunner().invoke(main, ["completion", shell, "--json"])
    assert result.exit_code == 0, result.output
    return str(json.loads(result.output)["script"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_one_that_its_shell_can_read(shell: str, tmp_path: Path) -> None:
    text = script(shell)
    assert "_LOOKALIKE_COMPLETE" in text
    if (found := shutil.which(shell)) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "script").write_text(text)
    checked = subprocess.run([found, "-n", tmp_path / "script"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_verbs_when_the_script_is_evaluated(tmp_path: Path) -> None:
    program = tmp_path / "lookalike"
    program.write_text(f"#!{sys.executable}\nfrom lookalike.console import main\nmain()\n")
    program.chmod(0o755)
    typed = """
        eval "$(lookalike completion bash)"
        COMP_WORDS=(lookalike ind) COMP_CWORD=1
        _lookalike_completion lookalike
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", typed],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LOOKALIKE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["index"], "")


def complete(*words: str) -> set[str]:
    *typed, begun = words
    shell = ShellComplete(main, {}, "lookalike", "_LOOKALIKE_COMPLETE")
    return {item.value for item in shell.get_completions(typed, begun)}


def test_versions_and_options_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path))
    assert complete("index", "promote", "") == set()
    for version in ("20260101T000000000000Z-00000000", "20270101T000000000000Z-00000000"):
        for kind in ("indexes", "bundles"):
            (tmp_path / kind / version).mkdir(parents=True)
            (tmp_path / kind / version / "manifest.json").write_text("{}")
    assert complete("index", "promote", "2026") == {"20260101T000000000000Z-00000000"}
    assert len(complete("bundle", "promote", "")) == 2
    assert complete("reindex", "--promote", "if_") == {"if_better", "if_valid"}
    assert "--dry-run" in complete("reindex", "--d")
    assert isinstance(main, click.Group)
