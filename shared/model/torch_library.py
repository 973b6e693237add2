"""Whether torch is here. It is installed only where something needs it: training, and models that a GPU runs."""

from importlib.util import find_spec

from shared.errors import TorchMissing

_MODULES = ("torch", "torchvision", "efficientnet_lite_pytorch")


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
            "`make torch` in the checkout; elsewhere, pip install 'lookalike[torch]'"
        )


def has_gpu() -> bool:
    """Whether torch is installed and can use a GPU."""
    if missing_torch():
        return False
    import torch

    return bool(torch.cuda.is_available())
