"""A process that decodes photos, one after another, within limits of memory and time that the kernel enforces.

It is the only place where a stranger's bytes meet a decoder: whatever they do to it, they do it to a process that
holds nothing else and is replaced within a second. Knows nothing of HTTP; `api.uploads.decoder_pool` starts it and
talks to it through a socket that is its standard input.
"""

import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from shared.errors import InputError, PhotoTooHeavy, PhotoUndecodable
from shared.photos.images import PreprocessSpec, open_photo, render, thumbnail, working_copy

CPU_S = 2.5
_STATUS = Path("/proc/self/status")


def main() -> None:
    """Serve until the other end of the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the API, which closes the socket
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _keep_for_python(sys.stderr.fileno())
    connection = socket.socket(fileno=0)
    connection.setblocking(True)  # gevent made both ends non-blocking
    with connection, connection.makefile("rwb") as stream:
        Image.init()
        gc.freeze()  # what was imported stays, and need not be looked at again
        limit_memory = _memory_limiter()
        while line := stream.readline():
            ask = json.loads(line)
            limit_memory(ask["memory_bytes"])
            photo = stream.read(ask["n_bytes"])
            # The kernel ends the process when it has spent so much of a core's time on this photo.
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            answer, content = _decode(photo, ask)
            stream.write(json.dumps(answer).encode() + b"\n" + content)
            stream.flush()
            signal.setitimer(signal.ITIMER_PROF, 0)
            if not content:
                gc.collect()  # the refusal and the frames it came through hold one another, and the photo


def _keep_for_python(descriptor: int) -> None:
    """Let our own exceptions be written there, and nothing that libraries have to say about a file."""
    logging.disable()
    sys.stderr = os.fdopen(os.dup(descriptor), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _decode(photo: bytes, ask: dict[str, object]) -> tuple[dict[str, object], bytes]:
    """The answer's line and what follows it: pixels and what is to be kept, or a thumbnail."""
    limits = {name: int(str(ask[name])) for name in ("max_pixels", "max_decoding_bytes")}
    try:
        image = open_photo(photo, **limits)
        if "thumbnail_px" in ask:
            content = thumbnail(image, int(str(ask["thumbnail_px"])))
        else:
            content = render(image, PreprocessSpec.model_validate(ask["spec"])).tobytes()
            content += working_copy(image) if ask["keep"] else b""
    except PhotoTooHeavy as refusal:
        return {"code": refusal.code, "detail": str(refusal), "too_heavy": True}, b""
    except MemoryError:
        error: InputError = PhotoUndecodable("the photo takes far more memory than one of its size; save it again")
    except InputError as refusal:
        error = refusal
    else:
        return {"n_bytes": len(content)}, content
    return {"code": error.code, "detail": str(error)}, b""


def _memory_limiter() -> Callable[[int], None]:
    """Sets how much more memory than now may be taken. Only Linux counts what is private and written."""
    if not _STATUS.exists():
        return lambda _: None
    at_rest = int(_STATUS.read_text().split("VmData:")[1].split()[0]) << 10
    return lambda n_bytes: resource.setrlimit(resource.RLIMIT_DATA, (at_rest + n_bytes, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
