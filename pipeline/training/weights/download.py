"""Download ResNet50's published weights into the directory where torch keeps such files, or find them there."""

import hashlib
import os
import tempfile
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, build_opener

from shared.errors import WeightsUnusable
from shared.progress import progress_bar

HOST = "download.pytorch.org"
NAME = "ResNet50 IMAGENET1K_V2"  # as torchvision names them
_FILE = "resnet50-11ad3fa6.pth"
_SHA256 = "11ad3fa6"  # how it begins; torchvision vouches for as much
_CHUNK = 1 << 20


def resnet50_file() -> Path:
    """Return where the weights are, once they have been downloaded by this or by torch."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TORCH_HOME") or Path(cache) / "torch") / "hub/checkpoints" / _FILE


def download_resnet50(timeout_s: float) -> Path:
    """Return the file of the weights; download it if it is not there.

    Args:
        timeout_s: how long the server may be silent.

    Raises:
        WeightsUnusable: it cannot be downloaded, kept, or is another file.
    """
    file = resnet50_file()
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f"{_FILE}.", delete=False) as part:
            try:
                _fetch(part, timeout_s)
                os.chmod(part.name, 0o644)
                os.replace(part.name, file)
            except BaseException:
                os.unlink(part.name)
                raise
    except (OSError, HTTPException) as exc:
        raise WeightsUnusable(str(exc)) from exc
    return file


def _fetch(part: "tempfile._TemporaryFileWrapper[bytes]", timeout_s: float) -> None:
    request = Request(f"https://{HOST}/models/{_FILE}", headers={"User-Agent": "lookalike"})
    digest = hashlib.sha256()
    with build_opener().open(request, timeout=timeout_s) as answer:
        length = int(answer.headers.get("Content-Length") or 0) or None
        with progress_bar(total=length, desc=_FILE, unit="B", unit_scale=True) as bar:
            while chunk := answer.read(_CHUNK):
                part.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
    part.flush()
    if not digest.hexdigest().startswith(_SHA256):
        raise WeightsUnusable(f"{HOST} gave another file: its SHA-256 begins with {digest.hexdigest()[:8]}")
