"""The sandbox of a decoder, on this kernel: what it holds, what it can do, and that every format decodes in it."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from api.uploads.decoder_pool import DecoderPool
from api.uploads.sandbox import Protection
from shared.photos.images import PreprocessSpec, decode_photo
from tests import ROOT
from tests.conftest import encode, noise_image

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="nothing is given up here"
)
SPEC = PreprocessSpec()
SECRET = "lookalike-test-secret"

# Harmless: what any program may do, tried by a process that has given it up.
ATTEMPTS = """
import json, os, socket, subprocess, sys
from api.uploads.sandbox import confine

given_up = confine()
attempts = {
    "read a file": lambda: open(sys.argv[1]).read(),
    "write a file": lambda: open(sys.argv[1] + ".new", "w"),
    "list a directory": lambda: os.listdir("/"),
    "look into its parent": lambda: open(f"/proc/{os.getppid()}/environ", "rb").read(),
    "signal its parent": lambda: os.kill(os.getppid(), 0),
    "open a TCP socket": lambda: socket.socket(),
    "open a UDP socket": lambda: socket.socket(type=socket.SOCK_DGRAM),
    "open a local socket": lambda: socket.socket(socket.AF_UNIX),
    "make a pair of sockets": lambda: socket.socketpair(),
    "run a program": lambda: subprocess.run([sys.executable, "-V"]),
    "load a module": lambda: __import__("wave"),
}
done = []
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError:
        continue
    done.append(name)
print(json.dumps({"given_up": given_up, "done": done}))
"""


@pytest.fixture(scope="module")
def decoders() -> Iterator[DecoderPool]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LOOKALIKE_REDIS_URL", "LOOKALIKE_WEBHOOK_SECRET", "AWS_SECRET_ACCESS_KEY", "SOME_TOKEN"):
            patch.setenv(name, SECRET)
        pool = DecoderPool(1, max_pixels=64_000_000)
        pool.decode(BytesIO(encode(noise_image(1))), SPEC)
        yield pool


def process_of(decoders: DecoderPool) -> Path:
    return Path(f"/proc/{decoders._small._idle[0]._process.pid}")


def kernel_has(protection: Protection) -> bool:
    """Landlock may be left out of a kernel; the rest is in every one that runs containers."""
    landlock = subprocess.run(
        [sys.executable, "-c", "import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(444, None, 0, 1) < 1)"],
        check=False,
    )
    return protection is not Protection.FILES or landlock.returncode == 0


def test_a_confined_process_can_do_no_more_than_load_modules(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    tried = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, str(tmp_path / "secret")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    report = json.loads(tried.stdout)
    assert set(report["given_up"]) == {protection for protection in Protection if kernel_has(protection)}
    assert "load a module" in report["done"]
    if kernel_has(Protection.FILES):
        assert set(report["done"]) <= {"load a module", "signal its parent"}  # signals since Linux 6.12
    else:
        assert not {name for name in report["done"] if "socket" in name or "program" in name}
    assert os.listdir(tmp_path) == ["secret"]


def test_a_decoder_inherits_no_secret(decoders: DecoderPool) -> None:
    environment = (process_of(decoders) / "environ").read_bytes()
    assert b"PYTHONPATH=" in environment
    assert SECRET.encode() not in environment
    names = {entry.split(b"=", 1)[0] for entry in environment.split(b"\0") if entry}
    assert not {name for name in names if b"LOOKALIKE" in name or b"AWS" in name or b"TOKEN" in name}


def test_a_decoder_has_no_privileges_and_holds_nothing_but_its_socket(decoders: DecoderPool) -> None:
    process = process_of(decoders)
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert (status["NoNewPrivs"], int(status["CapEff"], 16), int(status["CapPrm"], 16)) == ("1", 0, 0)
    assert status["Seccomp"] == "2"  # by a filter
    opened = {os.readlink(descriptor) for descriptor in (process / "fd").iterdir()}
    opened -= {os.devnull, os.readlink("/proc/self/fd/2")}
    opened = {name for name in opened if "/libffi.so" not in name}  # of which newer versions keep the file open
    assert [name.split(":")[0] for name in opened] == ["socket"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO", "HEIF"])
def test_every_format_decodes_in_it(decoders: DecoderPool, form: str) -> None:
    if form == "HEIF":
        pytest.importorskip("pillow_heif")
    buffer = BytesIO()
    noise_image(9).save(buffer, form)
    assert decoders.decode(BytesIO(buffer.getvalue()), SPEC) == decode_photo(buffer.getvalue(), SPEC).tobytes()
