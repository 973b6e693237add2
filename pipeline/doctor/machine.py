"""Check Python, processor, memory and GPU of this machine, with the standard library only."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.doctor.findings import Findings, fail, ok, warn
from shared.cores import n_cores

_OLDEST, _NEWEST = (3, 11), (3, 14)  # that all packages have wheels for
_MEMORY_FLOOR = 1 << 30
_MEMORY_GOOD = 2 << 30
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp")


def check_python() -> Findings:
    """Check Python's version, and that it is 64 bit."""
    found = f"{platform.python_version()}, {platform.machine()}, {sys.executable}"
    needed = "Python {}.{} to {}.{} is needed".format(*_OLDEST, *_NEWEST)
    advice = "{}: make PYTHON=python{}.{}".format(needed, *_NEWEST)
    if sys.version_info < _OLDEST:
        yield fail("python", found, advice)
    elif sys.version_info[:2] > _NEWEST:
        yield warn("python", found, f"not tried: {advice}")
    elif sys.maxsize < 2**32:
        yield fail("python", f"{found}, 32 bit", "the wheels are made for 64 bit: install that Python")
    else:
        yield ok("python", found)


def check_processor() -> Findings:
    """Check the cores this process may use, and the vector instructions that speed depends on."""
    n = n_cores()
    flags = _flags()
    known = [flag for flag in _TELLING_FLAGS if flag in flags]
    there = os.cpu_count() or n
    cores = f"{n} core{'s' * (n > 1)}" + (f" of {there}" if there > n else "")
    found = ", ".join([cores, *([" ".join(known)] if known else [])])
    if flags and not {"avx2", "asimd"} & flags:
        yield warn("processor", found, "without AVX2 a photo takes several times as long")
    elif n == 1:
        yield warn("processor", found, "model, decoder and API share it; two are better")
    else:
        yield ok("processor", found)


def check_memory() -> Findings:
    """Check the available memory, within the container's limit if there is one."""
    available = _available_bytes()
    if available is None:
        return
    found = f"{available / 2**30:.1f} GiB available"
    if available < _MEMORY_FLOOR:
        yield fail(
            "memory", found, "worker and API need about 1 GiB together: free some, or raise the container's limit"
        )
    elif available < _MEMORY_GOOD:
        yield warn("memory", found, "enough to serve; building or training wants 2 GiB")
    else:
        yield ok("memory", found)


def graphics_cards() -> list[str]:
    """Return the names of NVIDIA's GPUs in this machine, as far as its driver knows them."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
    names = [line.split(":", 1)[1].split("(")[0].strip() for line in listed.stdout.splitlines() if ":" in line]
    return [] if listed.returncode else names


def check_graphics() -> Findings:
    """Check for a GPU, and for a torch that can use it."""
    if shutil.which("nvidia-smi") is None:
        yield ok("gpu", "none: the model runs on the processor")
        return
    if not (names := graphics_cards()):
        yield warn(
            "gpu", "nvidia-smi lists none", "if there should be one, mend its driver; else this is of no concern"
        )
        return
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    if torch.endswith("+cpu") or torch == "none":
        yield warn(
            "gpu", f"{', '.join(names)}; torch {torch} cannot use it", "install torch's build for CUDA: make torch"
        )
    else:
        yield ok("gpu", f"{', '.join(names)}; torch {torch}")


def _flags() -> set[str]:
    """CPU flags as Linux lists them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    fields = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return set(next(fields, []))


def _available_bytes() -> int | None:
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return min(available, int(limit) - int(used))
    except (OSError, ValueError):  # no limit reads "max"
        return available
