"""A pool of decoder processes that turn photos into pixels; large photos are decoded one at a time."""

import json
import logging
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import gevent
from gevent.lock import BoundedSemaphore
from gevent.socket import socketpair

from api.uploads.process_memory import data_bytes
from api.uploads.sandbox import Protection
from shared.errors import (
    InputError,
    InvalidRequest,
    PhotoTooHeavy,
    PhotoTooLarge,
    PhotoUndecodable,
    QueueFull,
    UnsupportedFormat,
)
from shared.jobs.contract import Priority
from shared.photos.boxes import Box
from shared.photos.limits import DECODER_MALLOC, MAX_DECODING_BYTES
from shared.photos.preprocessing import PreprocessSpec
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_ROOT = str(Path(__file__).parents[2])

# Memory for decoding a small photo: 12 Mpx of RGB. A JPEG of that size needs far less.
_SMALL_BYTES = 48 << 20
# On top of the estimate: what a decoder needs for a photo of any size, and its copies of the upload.
_SLACK_BYTES = 32 << 20
_UPLOAD_COPIES = 2
_MAX_KEPT_BYTES = 96 << 20  # what a process may keep between photos; the libraries that they need take up to 55 MiB
_WITHIN_S = 4  # wall-clock time for one photo; its CPU time is limited to 2.5 s, so a later answer means a busy machine
_WAIT_S = 10
_WAIT_LARGE_S = 3  # a large photo takes one to two seconds to decode
_EXIT_WITHIN_S = 0.5
_RETRY_AFTER_S = 5
# All that a decoder inherits: how Python is found. Passwords and keys lie in other variables.
_INHERITED = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")
_REFUSALS: dict[str, type[InputError]] = {
    error.code: error for error in (InvalidRequest, PhotoTooLarge, PhotoUndecodable, UnsupportedFormat)
}


class DecoderPool:
    """Decoder processes, started when they are first needed: several for small photos, one for large ones.

    Args:
        n: number of small photos decoded at the same time.
        max_pixels: number of pixels of the largest photo accepted.
    """

    def __init__(self, n: int, *, max_pixels: int) -> None:
        self._small = _Pool(n, _SMALL_BYTES, _WAIT_S, max_pixels)
        # One process, whatever `n` is: this bounds the memory, and small photos do not wait for large ones.
        self._large = _Pool(1, MAX_DECODING_BYTES, _WAIT_LARGE_S, max_pixels)

    def decode(
        self,
        photo: IO[bytes],
        spec: PreprocessSpec,
        *,
        box: Box | None = None,
        keep: bool = False,
        priority: Priority = Priority.INTERACTIVE,
    ) -> bytes:
        """Decode a photo.

        Args:
            photo: its file.
            spec: preprocessing of the model that serves.
            box: the part of the upright photo to take; None takes all of it.
            keep: append a working copy of the photo, see `shared.photos.images.working_copy`.
            priority: of its job; no interactive photo waits behind bulk ones that wait.

        Returns:
            `spec.n_bytes` bytes of RGB, and the working copy.

        Raises:
            InputError: the photo cannot be decoded; PhotoUndecodable also if memory or time ran out, InvalidRequest if
                `box` has too few pixels.
            QueueFull: too many photos wait for a decoder.
        """
        return self._ask(photo, {"spec": spec.model_dump(), "box": box, "keep": keep}, priority)

    def thumbnail(self, photo: IO[bytes], size_px: int) -> bytes:
        """Make a thumbnail.

        Args:
            photo: its file.
            size_px: pixels of the longer side at most.

        Returns:
            A JPEG file.

        Raises:
            InputError, QueueFull: as of `decode`.
        """
        return self._ask(photo, {"thumbnail_px": size_px})

    def size(self, photo: IO[bytes]) -> tuple[int, int]:
        """Read width and height of a photo in pixels, once it is upright.

        Raises:
            InputError, QueueFull: as of `decode`.
        """
        width, height = json.loads(self._ask(photo, {"size": True}))
        return width, height

    def _ask(self, photo: IO[bytes], wanted: dict[str, object], priority: Priority = Priority.INTERACTIVE) -> bytes:
        try:
            return self._small.decode(photo, wanted, priority)
        except PhotoTooHeavy:
            return self._large.decode(photo, wanted, priority)


class _Pool:
    """Decoder processes with the same limits: up to `n`, each with `max_bytes` for decoding."""

    def __init__(self, n: int, max_bytes: int, wait_s: float, max_pixels: int) -> None:
        self._limits = {"max_pixels": max_pixels, "max_decoding_bytes": max_bytes}
        self._wait_s = wait_s
        self._free = BoundedSemaphore(n)
        # Only so many bulk photos wait for a free one: all others wait here, where they are in nobody's way.
        self._for_bulk = BoundedSemaphore(max(1, n - 1))
        self._idle: list[_Decoder] = []
        weakref.finalize(self, _end, self._idle)

    def decode(self, photo: IO[bytes], wanted: dict[str, object], priority: Priority) -> bytes:
        """Have a free process decode the photo; raises as `DecoderPool.decode`."""
        with self._turn(priority):
            decoder = self._idle.pop() if self._idle else _Decoder()
            if not decoder.alive:  # it was killed from outside while it was idle, not by this photo
                decoder.end()
                decoder = _Decoder()
            try:
                photo.seek(0)  # read only now: photos that wait for a decoder take no memory
                return decoder.ask(photo.read(), wanted, self._limits)
            except InputError:
                raise
            except BaseException:  # also after a timeout: the process's next answer would be about this photo
                decoder.end()
                raise
            finally:
                if decoder.alive and decoder.outgrown():
                    decoder.end()
                elif decoder.alive:
                    self._idle.append(decoder)

    @contextmanager
    def _turn(self, priority: Priority) -> Iterator[None]:
        """Wait for a place, and hold it."""
        until = time.monotonic() + self._wait_s
        with ExitStack() as held:
            for places in (self._for_bulk, self._free) if priority is Priority.BULK else (self._free,):
                if not places.acquire(timeout=max(0.0, until - time.monotonic())):
                    raise QueueFull("too many photos wait to be decoded", retry_after_s=_RETRY_AFTER_S)
                held.callback(places.release)
            yield


class _Decoder:
    """One decoder process and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socketpair()
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment = {**inherited, **DECODER_MALLOC, "PYTHONPATH": _ROOT, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", "api.uploads.decoder_process"],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        theirs.close()
        self._stream: IO[bytes] = self._socket.makefile("rwb")
        self._at_rest_bytes: int | None = None  # unknown before its first line
        self._kept_bytes = 0  # since then: libraries that a photo was the first to need, and caches

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def outgrown(self) -> bool:
        """Measure how much memory the process has kept; whether it is so much that another should take its place."""
        if self._at_rest_bytes:
            self._kept_bytes = max(0, data_bytes(self._process.pid) - self._at_rest_bytes)
        return self._kept_bytes > _MAX_KEPT_BYTES

    def ask(self, photo: bytes, wanted: dict[str, object], limits: dict[str, int]) -> bytes:
        """Have the process decode one photo.

        Args:
            photo: content of its file.
            wanted: what to make of it.
            limits: pixels and bytes.

        Raises:
            InputError: the photo was refused, or the process ended while it decoded it.
            QueueFull: the process did not answer in time.
        """
        memory_bytes = limits["max_decoding_bytes"] + _SLACK_BYTES + _UPLOAD_COPIES * len(photo) + self._kept_bytes
        header = {"n_bytes": len(photo), **limits, "memory_bytes": memory_bytes, **wanted}
        answer: dict[str, Any] = {}
        busy = QueueFull("the machine is too busy to decode the photo", retry_after_s=_RETRY_AFTER_S)
        try:
            with gevent.Timeout(_WITHIN_S, busy):
                self._stream.write(json.dumps(header).encode() + b"\n")
                self._stream.write(photo)
                self._stream.flush()
                if self._at_rest_bytes is None:
                    first = json.loads(self._stream.readline())
                    _tell_missing(tuple(sorted(set(Protection) - set(first["protections"]))))
                    self._at_rest_bytes = first["at_rest_bytes"]
                answer = json.loads(self._stream.readline())
                content = self._stream.read(n_bytes := answer.get("n_bytes", 0))
                if len(content) < n_bytes:
                    answer = {}  # the process ended while it answered
        except (OSError, ValueError):
            pass  # the process ended before it answered
        if not answer:
            raise self._failure_of_exit(len(photo))
        if code := answer.get("code"):
            raise (PhotoTooHeavy if answer.get("too_heavy") else _REFUSALS[code])(answer["detail"])
        return content

    def _failure_of_exit(self, photo_bytes: int) -> Exception:
        """End a process that did not answer, and make the error for its photo."""
        try:
            self._process.wait(_EXIT_WITHIN_S)
        except subprocess.TimeoutExpired:
            pass  # it hangs and is killed below
        status = self.end()
        if status > 0:  # an exception in our own code, which the process has logged
            return RuntimeError(f"a decoder ended with status {status}")
        event(_LOG, "decoder_ended", level=logging.WARNING, signal=-status, photo_bytes=photo_bytes)
        return PhotoUndecodable("the photo takes too long to decode; save it again")

    def end(self) -> int:
        """End the process, and return its exit status."""
        self._process.kill()
        with suppress(OSError):  # unsent bytes
            self._stream.close()
        self._socket.close()
        return self._process.wait()


@lru_cache(maxsize=1)  # so that it is told once, and not at each start of a process
def _tell_missing(protections: tuple[Protection, ...]) -> None:
    if protections:
        event(_LOG, "decoder_sandbox_incomplete", level=logging.WARNING, missing=",".join(protections))


def _end(decoders: list[_Decoder]) -> None:
    for decoder in decoders:
        decoder.end()
