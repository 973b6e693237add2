"""The directory of one training run: its configuration, its last checkpoint and its history."""

import json
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from shared.artifacts.store import unwritable
from shared.atomic_files import write_atomically
from shared.errors import TrainingFailed

State = dict[str, Any]  # tensors, numbers and text, nested

_CONFIG, _CHECKPOINT, _HISTORY = "run.json", "checkpoint.pt", "history.json"


class RunDirectory:
    """Checkpoints of one run; each replaces the one before atomically, so a killed process leaves one or the other.

    Args:
        path: the directory; made if it is missing.
        config: everything that decides what the run computes, as JSON.
        resume: continue the run that is there; else its files are removed.

    Raises:
        TrainingFailed: the run that is there has another configuration.
        ArtifactUnwritable: the disk is full or may not be written.
    """

    def __init__(self, path: Path, config: State, *, resume: bool) -> None:
        self.path, self.tensorboard = path, path / "tensorboard"
        config = json.loads(json.dumps(config))
        try:
            path.mkdir(parents=True, exist_ok=True)
            if resume and (path / _CONFIG).exists():
                self._compare(config)
                return
            for old in (path / _CHECKPOINT, path / _HISTORY, *self.tensorboard.glob("events*")):
                old.unlink(missing_ok=True)
            self._write(_CONFIG, lambda file: file.write_text(json.dumps(config, indent=1)))
        except OSError as exc:
            raise unwritable(path, exc) from exc

    def load(self, device: torch.device) -> State | None:
        """Read the last checkpoint; None if there is none yet.

        Raises:
            TrainingFailed: it cannot be read.
        """
        try:
            state: State = torch.load(self.path / _CHECKPOINT, map_location=device, weights_only=True)
        except FileNotFoundError:
            return None
        except (OSError, RuntimeError, EOFError, UnpicklingError) as exc:
            raise TrainingFailed(f"{self.path / _CHECKPOINT} cannot be read ({exc}); train without --resume") from exc
        return state

    def save(self, state: State, history: list[dict[str, float]]) -> None:
        """Replace the checkpoint and the history.

        Args:
            state: of the run, as `load` returns it.
            history: one entry for each epoch so far.

        Raises:
            ArtifactUnwritable: the disk is full; the one before stays.
        """
        try:
            self._write(_CHECKPOINT, lambda file: torch.save(state, file))
            self._write(_HISTORY, lambda file: file.write_text(json.dumps(history, indent=1)))
        except (OSError, RuntimeError) as exc:  # torch's writer has its own error for a full disk
            raise unwritable(self.path, exc if isinstance(exc, OSError) else OSError(0, str(exc))) from exc

    def _compare(self, config: State) -> None:
        before = json.loads((self.path / _CONFIG).read_bytes())
        if differing := sorted(name for name in config | before if config.get(name) != before.get(name)):
            raise TrainingFailed(
                f"the run in {self.path} had another {', '.join(differing)}; "
                "train without --resume to start anew, or into another directory"
            )

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        with write_atomically(self.path / name, fsync=True) as temporary:
            write(temporary)
