"""Importing the front door costs neither torch nor faiss: proven in a fresh interpreter."""

import subprocess
import sys

import grimp


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


def test_no_modules_import_one_another_in_a_circle() -> None:
    graph = grimp.build_graph(
        "api", "worker", "pipeline", "shared", "lookalike", exclude_type_checking_imports=True, cache_dir=None
    )
    imports = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    while free := {name for name, imported in imports.items() if not imported & imports.keys()}:
        imports = {name: imported for name, imported in imports.items() if name not in free}
    assert imports == {}  # each of these is part of a circle, or leads into one
