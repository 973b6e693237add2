"""Cache on disk of a network's frozen activations: the output of its frozen stages for each view of each photo.

Records are only ever appended: the values first, then a line with their key. A process may be killed at any moment;
values without a key are computed again.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.building.export import Forward
from pipeline.local.locks import exclusive
from pipeline.training.network.dataset import Augmentation, PhotoViews, View
from shared.artifacts.store import unwritable
from shared.errors import ArtifactUnwritable
from shared.photos.images import PreprocessSpec
from shared.progress import ReportProgress, progress_bar

MAX_BYTES = 40 << 30  # all activations together; the sets used longest ago go first
_KEPT_S = 30 * 86_400
_SPARE_BYTES = 1 << 30  # of the disk that stay free

_CHUNK = 64  # views decoded side by side, and stored with one line each
_BATCH = 8  # on a CPU larger ones fall out of the caches
_LINE_BYTES = 64 + 1 + 5 + 1  # "<sha256> <view>\n"


class Activations(Dataset[Tensor]):
    """The activations of one set of frozen stages: float16 on disk, float32 when they are read.

    Args:
        directory: of this set alone, see `activations_key`.
        sha256: of the photo in each row.
        shape: of one record, without a batch dimension.
    """

    def __init__(self, directory: Path, sha256: Sequence[str], shape: tuple[int, ...]) -> None:
        self._directory, self._sha256, self._shape = directory, sha256, shape
        self._values_path, self._keys_path = directory / "values.f16", directory / "rows.txt"
        self._n_bytes = 2 * int(np.prod(shape))
        self._position: dict[str, int] = {}
        self._values = np.zeros((0, *shape), np.float16)

    def __len__(self) -> int:
        return len(self._position)

    def __getitem__(self, view: View) -> Tensor:
        return self.__getitems__([view])[0]

    def __getitems__(self, views: list[View]) -> Tensor:
        """The records of some views, (n, *shape) float32."""
        records = self._values[[self._position[self._key(view)] for view in views]]
        return torch.from_numpy(records.astype(np.float32))

    def fill(
        self, views: PhotoViews, wanted: Iterable[View], front: Callable[[], Forward], report_progress: ReportProgress
    ) -> None:
        """Compute the activations that are wanted and missing.

        Args:
            views: gives the pixels of a view.
            wanted: views that training will ask for.
            front: makes the function that runs the frozen stages; called only if something is missing.
            report_progress: receives one line: how much is missing and how large it all is.

        Raises:
            ArtifactUnwritable: the disk has no room for it, or may not be written.
            CannotStart: another process fills the same activations.
        """
        with exclusive(self._directory / "lock", "these activations are being computed by another process"):
            self._recover()
            missing = list({line: view for view in wanted if (line := self._key(view)) not in self._position}.items())
            report_progress(
                f"activations: {len(missing)} views to compute, {len(self._position)} there already, "
                f"{(len(missing) + len(self._position)) * self._n_bytes / 1e9:.2f} GB in {self._directory}"
            )
            room = shutil.disk_usage(self._directory).free - _SPARE_BYTES
            if missing and room < len(missing) * self._n_bytes:
                raise ArtifactUnwritable(
                    f"{self._directory} needs {len(missing) * self._n_bytes / 1e9:.1f} GB and {max(room, 0) / 1e9:.1f} "
                    "GB may be used; make room, or train fewer views"
                )
            if missing:
                try:
                    self._compute(views, missing, front())
                except OSError as exc:
                    raise unwritable(self._directory, exc) from exc
            self._map_values()

    def _recover(self) -> None:
        """Read the keys that earlier runs wrote, and cut off records that were not finished."""
        for path in (self._values_path, self._keys_path):
            path.touch()
        n_lines = self._keys_path.stat().st_size // _LINE_BYTES
        n_records = min(n_lines, self._values_path.stat().st_size // self._n_bytes)
        os.truncate(self._values_path, n_records * self._n_bytes)
        os.truncate(self._keys_path, n_records * _LINE_BYTES)
        self._position = {line: i for i, line in enumerate(self._keys_path.read_text().splitlines())}

    def _compute(self, views: PhotoViews, missing: list[tuple[str, View]], forward: Forward) -> None:
        chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
        decoded = load_batches(views, [[view for _, view in chunk] for chunk in chunks])
        with (
            self._values_path.open("ab") as values,
            self._keys_path.open("a") as lines,
            progress_bar(total=len(missing), desc="activations", unit="view") as bar,
        ):
            for chunk, pixels in zip(chunks, decoded, strict=True):
                for batch in np.array_split(pixels.numpy(), range(_BATCH, len(pixels), _BATCH)):
                    values.write(forward(batch)[0].astype(np.float16).tobytes())
                    bar.update(len(batch))
                values.flush()
                os.fdatasync(values.fileno())  # a line must not outlive its record when the power fails
                lines.write("".join(f"{line}\n" for line, _ in chunk))
                lines.flush()
                for line, _ in chunk:
                    self._position[line] = len(self._position)

    def _map_values(self) -> None:
        if self._position:
            self._values = np.memmap(self._values_path, np.float16, "r", shape=(len(self._position), *self._shape))
        os.utime(self._directory)

    def _key(self, view: View) -> str:
        row, number = view
        return f"{self._sha256[row]} {number:05d}"


def load_batches(source: Dataset[Tensor], batches: list[list[View]]) -> Iterator[Tensor]:
    """Load batches of views in order, each with one call of the dataset."""
    return iter(DataLoader(source, batch_sampler=batches, collate_fn=_unchanged))


def _unchanged(batch: Any) -> Any:
    return batch  # it comes as one tensor already


def activations_key(front_digest: str, spec: PreprocessSpec, augmentation: Augmentation, seed: int) -> str:
    """Name of the directory for activations: a hash of everything that decides their values."""
    decisive = [front_digest, spec.model_dump(mode="json"), asdict(augmentation), seed]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


def evict_activations(root: Path, *, keep: str) -> None:
    """Remove sets that were not used for a month, and the least recently used while all take more than MAX_BYTES.

    Args:
        root: directory of all sets.
        keep: the set that is about to be used.
    """
    n_bytes = 0
    found = [path for path in root.glob("*") if path.is_dir()]
    for path in sorted(found, key=lambda path: (path.name == keep, path.stat().st_mtime), reverse=True):
        n_bytes += sum(file.stat().st_size for file in path.iterdir())
        if path.name != keep and (n_bytes > MAX_BYTES or path.stat().st_mtime < time.time() - _KEPT_S):
            with suppress(OSError):  # somebody sweeps too
                shutil.rmtree(path)
