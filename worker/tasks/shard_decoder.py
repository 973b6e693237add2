"""Decodes the photos of shards in a process beside the worker, which gives way to all others.

In threads of the worker, decoding would hold up every search: whoever has the interpreter's lock and is not let run
keeps it from all other threads. So this is a process, `python -m worker.tasks.shard_decoder`, with a socket for its
standard input. An empty line comes in, and `_READY` goes out; then a JSON line with the photos of a shard comes in, and
for each of them, in that order, JSON goes out behind its length, and the pixels if there are any.
"""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from shared.artifacts.buckets import Buckets
from shared.catalogue.decode import ahead, decode_file
from shared.cores import give_way, n_cores
from shared.errors import InternalError, StoreUnavailable, WorkerLost
from shared.jobs.reindex_contract import ShardPhoto
from shared.photos.images import Pixels, PreprocessSpec
from shared.photos.limits import DECODER_MALLOC
from shared.telemetry import configure_logging

_ROOT = str(Path(__file__).parents[2])
_READ_AHEAD = 16  # a store answers after a while, but many at a time
# Of each process, of which there are two as a rule: decoding takes a fifth to a half of what the model takes.
_DECODED_AT_A_TIME = max(1, n_cores() // 4)
_IDLE_S = 30.0  # after which a process is ended, or up to as much again
_ASKED_EVERY_S = 1.0  # whether a shard is still wanted, while nothing comes
# After which it hangs: longer than a store may take to answer, or a busy machine for all photos ahead of one.
_SILENT_S = 300.0
# Another one where the exchange is another: the files of a worker that runs may be replaced by newer ones.
_READY = b"1"
_LENGTH_BYTES = 4
_STARTS = 5  # idle processes may be gone, and new ones be killed, or be short of memory, before they have begun


class ShardDecoders:
    """Processes that decode, each for one shard at a time.

    They are started when they are needed, and ended when they are not.

        with decoders.decoded(photos, spec, cache) as decoded:
            for pixels in decoded: ...
    """

    def __init__(self) -> None:
        self._idle: list[_Decoder] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    @contextmanager
    def decoded(
        self, photos: Sequence[ShardPhoto], spec: PreprocessSpec, cache: Path, check: Callable[[], None] = lambda: None
    ) -> Iterator[Iterator[Pixels | str]]:
        """Have the photos of a shard decoded; those not asked for when the body ends are left.

        Args:
            photos: to read and decode.
            spec: how a photo becomes the network's input.
            cache: directory for what is fetched from object stores.
            check: called every second in which nothing comes; raises where the shard is not wanted any more.

        Yields:
            for each photo, in their order: (S, S, 3) uint8 RGB, or as text the reason why there are no pixels. Instead
            it raises StoreUnavailable where a store does not answer, WorkerLost where the process ended or was silent
            for minutes: a photo has crashed it, or it was killed; and InternalError where it did not even start.
        """
        decoder = self._take(check)
        try:
            yield decoder.decode(photos, spec, cache, check)
        finally:
            if decoder.is_done:
                self._keep(decoder)
            else:
                decoder.end()

    def _take(self, check: Callable[[], None]) -> "_Decoder":
        for _ in range(_STARTS):
            with self._lock:
                decoder = self._idle.pop() if self._idle else None
            decoder = decoder or _Decoder()
            try:
                if decoder.is_ready(check):
                    return decoder
            except BaseException:
                decoder.end()
                raise
            decoder.end()
        raise InternalError("the process that decodes photos does not start; restart the worker, or see its log")

    def close(self) -> None:
        """End the idle processes; may be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.end()

    def _keep(self, decoder: "_Decoder") -> None:
        decoder.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(decoder)
            self._look_again()

    def _end_idle(self) -> None:
        with self._lock:
            idle_since = time.monotonic() - _IDLE_S
            ended = [decoder for decoder in self._idle if decoder.idle_since <= idle_since]
            self._idle = [decoder for decoder in self._idle if decoder not in ended]
            self._timer = None
            self._look_again()
        for decoder in ended:
            decoder.end()

    def _look_again(self) -> None:
        """See to it that idle processes are ended in time; the caller holds the lock."""
        if self._idle and self._timer is None:
            self._timer = threading.Timer(_IDLE_S, self._end_idle)
            self._timer.daemon = True
            self._timer.start()


class _Decoder:
    """One process and the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-m", __name__],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env={**os.environ, **DECODER_MALLOC, "PYTHONPATH": _ROOT, "OPENBLAS_NUM_THREADS": "1"},
            )
        self._socket.settimeout(_ASKED_EVERY_S)
        self.is_done = True
        self.idle_since = 0.0

    def is_ready(self, check: Callable[[], None]) -> bool:
        """Greet it, and wait for its answer; returns whether one came: it may not have started, or may be gone."""
        try:
            self._socket.sendall(b"\n")
            return self._read(len(_READY), check) == _READY
        except (EOFError, OSError):
            check()  # asked to stop, as the worker is
            return False

    def decode(
        self, photos: Sequence[ShardPhoto], spec: PreprocessSpec, cache: Path, check: Callable[[], None]
    ) -> Iterator[Pixels | str]:
        """Decode the photos of a shard; see `ShardDecoders.decoded`."""
        request = {"spec": spec.model_dump(), "cache": str(cache), "photos": [photo.model_dump() for photo in photos]}
        shape = (spec.size_px, spec.size_px, 3)
        self.is_done = False
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            for _ in photos:
                answer = json.loads(self._read(int.from_bytes(self._read(_LENGTH_BYTES, check)), check))
                if "unavailable" in answer:
                    raise StoreUnavailable(answer["unavailable"])
                if "failed" in answer:
                    yield answer["failed"]
                else:
                    yield np.frombuffer(self._read(math.prod(shape), check), np.uint8).reshape(shape)
        except (EOFError, OSError):
            raise WorkerLost("the process that decodes photos ended, or hangs") from None
        self.is_done = True

    def _read(self, n_bytes: int, check: Callable[[], None]) -> bytearray:
        content = bytearray(n_bytes)
        left, hangs_at = memoryview(content), time.monotonic() + _SILENT_S
        while left:
            try:
                n_read = self._socket.recv_into(left)
            except TimeoutError:
                check()
                if time.monotonic() > hangs_at:
                    raise
                continue
            if not n_read:
                raise EOFError
            left = left[n_read:]
        return content

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._socket.close()
        self._process.wait()


def main() -> None:
    """Decode shards until the other end of the socket is closed."""
    for asked_to_stop in (signal.SIGINT, signal.SIGTERM):  # the worker is asked too, and closes the socket in the end
        signal.signal(asked_to_stop, signal.SIG_IGN)
    configure_logging()
    give_way()
    connection = socket.socket(fileno=0)
    decoding = threading.BoundedSemaphore(_DECODED_AT_A_TIME)
    with connection, ThreadPoolExecutor(_READ_AHEAD) as pool:
        stream = cast(BinaryIO, connection.makefile("rwb"))
        with suppress(ConnectionError):
            while line := stream.readline():
                if line == b"\n":
                    connection.sendall(_READY)
                else:
                    _decode(json.loads(line), stream, pool, decoding)


def _decode(
    request: dict[str, Any], stream: BinaryIO, pool: ThreadPoolExecutor, decoding: threading.BoundedSemaphore
) -> None:
    spec, buckets = PreprocessSpec.model_validate(request["spec"]), Buckets(Path(request["cache"]))

    def decode(photo: dict[str, str]) -> Pixels | str:
        try:
            return decode_file(buckets.file(photo["path"]), spec, photo["sha256"], decoding)
        except OSError as exc:  # no more files may be opened: not the fault of a photo
            raise StoreUnavailable(f"photos cannot be read just now: {exc.strerror}") from exc

    try:
        for _, pixels in ahead(pool, decode, request["photos"], n_ahead=_READ_AHEAD):
            if isinstance(pixels, str):
                _answer(stream, {"failed": pixels})
            else:
                _answer(stream, {}, pixels.tobytes())
    except StoreUnavailable as error:
        _answer(stream, {"unavailable": str(error)})


def _answer(stream: BinaryIO, answer: dict[str, str], pixels: bytes = b"") -> None:
    content = json.dumps(answer).encode()
    stream.write(len(content).to_bytes(_LENGTH_BYTES) + content + pixels)
    stream.flush()


if __name__ == "__main__":
    main()
