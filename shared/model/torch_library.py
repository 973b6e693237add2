"""Whether torch is here. It is installed only where something needs it: training, and models that a GPU runs."""

import ctypes
import sys
from importlib.util import find_spec
from pathlib import Path

from shared.errors import TorchMissing

_MODULES = ("torch", "torchvision", "efficientnet_lite_pytorch")
_NVIDIA_DRIVER = "libcuda.so.1"
_AMD_DRIVER = Path("/dev/kfd")  # torch for these calls them CUDA too


def missing_torch() -> tuple[str, ...]:
    """Return those of torch's packages that are not installed."""
    return tuple(name for name in _MODULES if find_spec(name) is None)


def require_torch(who: str) -> None:
    """Refuse to go on without torch.

    Args:
        who: needs it, for people.

    Raises:
        TorchMissing: it is not installed.
    """
    if missing := missing_torch():
        raise TorchMissing(
            f"{who} needs {', '.join(missing)}, which the set-up leaves out until something needs it: type "
            "`make torch` in the checkout; for containers, build the image with TORCH_INDEX or take the one for GPUs; "
            "elsewhere, pip install 'lookalike[torch]'"
        )


def has_gpu() -> bool:
    """Whether torch is installed and can use a GPU."""
    if missing_torch() or not _has_driver():
        return False
    import torch

    return bool(torch.cuda.is_available())


def _has_driver() -> bool:
    """Whether there may be a driver of a GPU; where there is none, torch is not imported, which takes seconds."""
    if sys.platform != "linux" or _AMD_DRIVER.exists():
        return True
    try:
        ctypes.CDLL(_NVIDIA_DRIVER)
    except OSError:
        return False
    return True
