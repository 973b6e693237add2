"""What an NVIDIA GPU does for this service, in under eight minutes: `python -m tests.benchmarks.gpu`.

Each section is a process of its own, so that one that fails, hangs or loses the GPU costs no other's figures:

    device     which GPU, what else it is doing, and with which libraries
    cosine     embeddings as workers serve them on a GPU, and in other precisions, against float32 on the CPU
    batches    photos a second by batch size: as served, not compiled, in float32, and with the pixels there already
    service    embed jobs of 128 clients against the bare loop; photos a second of a reindex
    training   seconds of an epoch of fine-tuning and of the head

`var/bench/gpu.json` is written after each of them. What a section needs and this machine lacks (Valkey, FAISS) is told,
and the section left out. Ends with 1 where a section or a check failed: cosine of each photo at least 0.999, and on a
GPU 0.8 of the bare loop. Without a GPU all runs in torch on the CPU, which says nothing of GPUs.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.benchmarks.support.gpu_sections import SECTIONS, Wanted
from tests.benchmarks.support.report import Report

_MINUTES = 8.0
_ENDS_WITHIN_S = 20.0  # a section that is asked to: it stops what it has started


def main() -> None:
    """Print tables; write `var/bench/gpu.json` and `var/bench/gpu.png`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=["resnet50", "efficientnet_lite0"], default="resnet50")
    parser.add_argument("--weights", type=Path, help="of ResNet50, in torchvision's layout; default: drawn at random")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="for everything; what does not fit is left out")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true", help="whether it runs at all: EfficientNet-Lite0, few of all")
    given = parser.parse_args()
    weights = given.weights and str(given.weights.resolve())
    wanted = Wanted("efficientnet_lite0" if given.quick else given.backbone, weights, given.quick)
    report = Report("gpu", commit=_git("rev-parse", "HEAD"), changed_since=bool(_git("status", "--porcelain")))
    deadline, failed = time.monotonic() + 60 * given.minutes, False
    for name in given.only:
        began = time.monotonic()
        outcome, told = _run_apart(name, wanted, deadline)
        for line in told:
            if "table" in line:
                report.add(line["table"], **line["row"])
                failed |= line["row"].get("passed") is False
            else:
                report.facts |= line
        failed |= outcome != "done" and not outcome.startswith("left out")
        report.add("sections", section=name, seconds=time.monotonic() - began, outcome=outcome)
        report.save()
    report.plot("batches", x="batch", y="photos_per_s", by="way")
    report.finish()
    sys.exit(1 if failed else 0)


def _git(*arguments: str) -> str | None:
    """What git answers; None where this is no checkout."""
    with suppress(OSError):
        ended = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if ended.returncode == 0:
            return ended.stdout.strip()
    return None


def _run_apart(name: str, wanted: Wanted, deadline: float) -> tuple[str, list[dict[str, Any]]]:
    """Run a section in another process: how it ended, and what it had told until then."""
    if (left_s := deadline - time.monotonic()) <= 0:
        return "left out: no time was left, see --minutes", []
    with tempfile.TemporaryDirectory() as scratch:
        into, errors = Path(scratch) / "told", Path(scratch) / "errors"
        into.touch()
        command = [sys.executable, "-m", "tests.benchmarks.support.gpu_sections", name, str(into), json.dumps(wanted)]
        with errors.open("wb") as sink:
            process = subprocess.Popen(command, stderr=sink, start_new_session=True)
            try:
                process.wait(left_s)
                outcome = "done" if process.returncode == 0 else ""
            except subprocess.TimeoutExpired:
                outcome = "not done when the time was over, see --minutes"
            finally:
                _end(process)
        told = [json.loads(line) for line in into.read_text().splitlines()]
        said = errors.read_text(errors="replace").strip()
    if not outcome:
        last = said.splitlines()[-1] if said else f"ended with {process.returncode}"
        lacking = last.removeprefix("ModuleNotFoundError: ")
        outcome = f"failed: {last}" if lacking == last else f"left out: {lacking}"
    if not outcome.startswith(("done", "left out")):
        print(said, file=sys.stderr)
    return outcome, told


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask it and its children to end, so that it stops a service that it has started; make them if they do not."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, signum)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDS_WITHIN_S)


if __name__ == "__main__":
    main()
