"""docker-compose.yml is accepted by Docker's own parser, and says what the README promises."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def compose(*arguments: str) -> "subprocess.CompletedProcess[str]":
    binary = Path(sys.executable).with_name("docker-compose")
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(
        [binary, "-f", ROOT / "docker-compose.yml", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_compose_accepts_the_file_without_an_engine_and_without_edits() -> None:
    checked = compose("config", "-q")
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    services: dict[str, Any] = yaml.safe_load(compose("config").stdout)["services"]
    assert {"redis", "api", "worker"} <= set(services)
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert list(published) == ["api"]
    assert [port["host_ip"] for port in published["api"]] == ["127.0.0.1"]
