"""Decoders: photos -> pixels in processes of their own, large ones one at a time. Knows nothing of HTTP or forms."""

import json
import logging
import os
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import gevent
from gevent.lock import BoundedSemaphore
from gevent.socket import socketpair

from shared.errors import InputError, PhotoTooHeavy, PhotoTooLarge, PhotoUndecodable, QueueFull, UnsupportedFormat
from shared.photos.images import MAX_DECODING_BYTES, PreprocessSpec
from shared.telemetry import event

_LOG = logging.getLogger(__name__)
_ROOT = str(Path(__file__).parents[2])

# 12 Mpx of RGB; a JPEG needs far less for its size.
_SMALL_BYTES = 48 << 20
# Above the estimate: what a decoder needs whatever the size, and its copies of the upload.
_SLACK_BYTES = 32 << 20
_UPLOAD_COPIES = 2
_WITHIN_S = 4  # of the clock; who is not done by then, within its share of a core's time, is on a busy machine
_WAIT_S = 10
_WAIT_LARGE_S = 3  # a large photo takes one to two seconds; one that waited longer would be a long time in coming
_LAST_WORDS_S = 0.5
_RETRY_AFTER_S = 5
# Pixels beyond 4 MiB go back to the system when they are freed: glibc would keep the arenas of its largest photo.
# Below, the same memory serves the next photo: having the kernel clear it anew took a quarter of the decoding.
_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "4194304"}
_REFUSALS: dict[str, type[InputError]] = {
    error.code: error for error in (PhotoTooLarge, PhotoUndecodable, UnsupportedFormat)
}


class DecoderPool:
    """Decoding processes, started when first needed: some for small photos, one for large ones.

    Args:
        n: small photos decoded at the same time.
        max_pixels: largest photo taken.
    """

    def __init__(self, n: int, *, max_pixels: int) -> None:
        self._small = _Pool(n, _SMALL_BYTES, _WAIT_S, max_pixels)
        # One, whatever `n`: memory does not grow with it, and a large photo holds up no small one.
        self._large = _Pool(1, MAX_DECODING_BYTES, _WAIT_LARGE_S, max_pixels)

    def decode(self, photo: IO[bytes], spec: PreprocessSpec, *, keep: bool = False) -> bytes:
        """The photo as `spec.n_bytes` of RGB.

        Args:
            keep: a `working_copy` of it is to follow.

        Raises:
            InputError: what `decode_photo` raises; also PhotoUndecodable where memory or time ran out.
            QueueFull: too many photos wait for a decoder.
        """
        return self._ask(photo, {"spec": spec.model_dump(), "keep": keep})

    def thumbnail(self, photo: IO[bytes], size_px: int) -> bytes:
        """The photo as a JPEG whose longer side is `size_px` at most; raises as `decode`."""
        return self._ask(photo, {"thumbnail_px": size_px})

    def _ask(self, photo: IO[bytes], wanted: dict[str, object]) -> bytes:
        try:
            return self._small.decode(photo, wanted)
        except PhotoTooHeavy:
            return self._large.decode(photo, wanted)


class _Pool:
    """Processes with the same limits."""

    def __init__(self, n: int, max_bytes: int, wait_s: float, max_pixels: int) -> None:
        self._limits = {"max_pixels": max_pixels, "max_decoding_bytes": max_bytes}
        self._wait_s = wait_s
        self._free = BoundedSemaphore(n)
        self._idle: list[_Decoder] = []
        weakref.finalize(self, _end, self._idle)

    def decode(self, photo: IO[bytes], wanted: dict[str, object]) -> bytes:
        if not self._free.acquire(timeout=self._wait_s):
            raise QueueFull("too many photos wait to be decoded", retry_after_s=_RETRY_AFTER_S)
        try:
            decoder = self._idle.pop() if self._idle else _Decoder()
            if not decoder.alive:  # it was killed from outside as it waited; this photo is not to blame
                decoder.end()
                decoder = _Decoder()
            try:
                photo.seek(0)  # read only now: those who wait cost no memory
                return decoder.ask(photo.read(), wanted, self._limits)
            except InputError:
                raise
            except BaseException:  # also for a timeout: what the process says next would answer this photo
                decoder.end()
                raise
            finally:
                if decoder.alive:
                    self._idle.append(decoder)
        finally:
            self._free.release()


class _Decoder:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socketpair()
        environment = {**os.environ, **_MALLOC, "PYTHONPATH": _ROOT, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", "api.uploads.decoder_process"],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        theirs.close()
        self._stream: IO[bytes] = self._socket.makefile("rwb")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, photo: bytes, wanted: dict[str, object], limits: dict[str, int]) -> bytes:
        question = {
            "n_bytes": len(photo),
            **limits,
            "memory_bytes": limits["max_decoding_bytes"] + _SLACK_BYTES + _UPLOAD_COPIES * len(photo),
            **wanted,
        }
        answer: dict[str, Any] = {}
        busy = QueueFull("the machine is too busy to decode the photo", retry_after_s=_RETRY_AFTER_S)
        try:
            with gevent.Timeout(_WITHIN_S, busy):
                self._stream.write(json.dumps(question).encode() + b"\n")
                self._stream.write(photo)
                self._stream.flush()
                answer = json.loads(self._stream.readline())
                content = self._stream.read(answer.get("n_bytes", 0))
        except (OSError, ValueError):
            pass  # it ended before it answered
        if not answer:
            raise self._ended(len(photo))
        if code := answer.get("code"):
            raise (PhotoTooHeavy if answer.get("too_heavy") else _REFUSALS[code])(answer["detail"])
        return content

    def _ended(self, photo_bytes: int) -> Exception:
        try:
            self._process.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            pass  # it hangs
        status = self.end()
        if status > 0:  # an exception in our code, which it has logged
            return RuntimeError(f"a decoder ended with status {status}")
        event(_LOG, "decoder_ended", level=logging.WARNING, signal=-status, photo_bytes=photo_bytes)
        return PhotoUndecodable("the photo takes too long to decode; save it again")

    def end(self) -> int:
        """End the process; its exit status."""
        self._process.kill()
        with suppress(OSError):  # what was still to be written
            self._stream.close()
        self._socket.close()
        return self._process.wait()


def _end(decoders: list[_Decoder]) -> None:
    for decoder in decoders:
        decoder.end()
