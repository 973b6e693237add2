"""`lookalike doctor`: check whether this machine can run the service, and advise where it cannot."""

import json
import sys
from collections import Counter
from dataclasses import asdict

import click

from pipeline.cli.help import with_examples
from pipeline.doctor import installation, machine, remote_storage
from pipeline.doctor.findings import Check, Finding, State, run_check
from pipeline.doctor.redis_server import check_redis
from pipeline.doctor.wheels import check_wheels

CHECKS: dict[str, Check] = {
    "python": machine.check_python,
    "processor": machine.check_processor,
    "memory": machine.check_memory,
    "gpu": machine.check_graphics,
    "settings": installation.check_settings,
    "home": installation.check_home,
    "port": installation.check_port,
    "redis": check_redis,
    "store": remote_storage.check_store,
    "index": remote_storage.check_index,
    "weights": installation.check_weights,
    "catalogue": installation.check_catalogue,
    "artifacts": installation.check_artifacts,
    "wheels": check_wheels,
}
_COLOURS = {State.OK: "green", State.WARN: "yellow", State.FAIL: "red"}


@with_examples("lookalike doctor", "lookalike doctor --json")
@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Find out whether this machine can run the service, and say what to do where it cannot.

    Looks at Python, the processor, memory, settings, LOOKALIKE_HOME and its disk, the port, Redis and its settings,
    the object store and Milvus where settings name them, where weights come from, the catalogue, the live bundle and
    index, and at every package. Changes nothing, and runs where packages are missing. Most of the time it takes goes
    into loading every package once.

    Exit code: 0 when nothing fails, warnings or not; 1 when something does.
    """
    found: list[Finding] = []
    for name, check in CHECKS.items():
        for finding in run_check(name, check):
            found.append(finding)
            if not as_json:
                _print(finding)
    counts = Counter(finding.state for finding in found)
    failed = counts[State.FAIL] > 0
    if as_json:
        click.echo(json.dumps({"ok": not failed, "findings": [asdict(finding) for finding in found]}))
    else:
        click.echo(f"{counts[State.OK]} ok, {counts[State.WARN]} warn, {counts[State.FAIL]} fail")
    sys.exit(1 if failed else 0)


def _print(finding: Finding) -> None:
    click.echo(click.style(f"{finding.state:5}", fg=_COLOURS[finding.state]) + f"{finding.what:17} {finding.found}")
    if finding.advice:
        click.echo(f"{'':22} -> {finding.advice}")
