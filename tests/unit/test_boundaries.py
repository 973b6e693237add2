"""Importing the front door costs neither torch nor faiss: proven in a fresh interpreter."""

import subprocess
import sys


def loaded_by(module: str) -> set[str]:
    script = f"import {module}, sys; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_api_loads_nothing_heavy() -> None:
    assert not loaded_by("api.app") & {"torch", "torchvision", "faiss", "pandas", "sklearn", "pipeline", "worker"}


def test_the_worker_loads_no_web_framework() -> None:
    assert not loaded_by("worker.process") & {"flask", "gunicorn", "gevent", "pandas", "sklearn", "pipeline", "api"}


def test_the_command_line_loads_nothing_heavy_before_it_needs_it() -> None:
    assert not loaded_by("pipeline.cli.main, pipeline.local.up") & {"torch", "sklearn", "flask", "celery"}
