"""The decoder process: decodes photos one after another, within limits of memory and CPU time set in the kernel.

Image decoders see uploaded bytes only here: a photo that exploits or crashes one hits a process that holds nothing,
can reach nothing (`api.uploads.sandbox`), and is replaced at once. `api.uploads.decoder_pool` starts it and talks to it
through a socket that is its standard input: a JSON line and the photo come in, a JSON line and the pixels go out. The
first line out, before any photo, lists what the process gave up, and the memory that it takes at rest.
"""

import gc
import json
import logging
import os
import resource
import signal
import socket
import sys
from typing import Any

from PIL import Image

from api.uploads.process_memory import data_bytes
from api.uploads.sandbox import confine
from shared.errors import InputError, PhotoTooHeavy, PhotoUndecodable
from shared.photos.boxes import Box
from shared.photos.images import PreprocessSpec, open_photo, render, thumbnail, upright_size, working_copy

CPU_S = 2.5  # CPU time for one photo


def main() -> None:
    """Decode photos until the other end of the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the API, which closes the socket
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _silence_libraries(sys.stderr.fileno())
    connection = socket.socket(fileno=0)
    connection.setblocking(True)  # gevent made both ends non-blocking
    with connection, connection.makefile("rwb") as stream:
        Image.init()
        gc.freeze()  # imported objects stay: the garbage collector need not scan them again
        at_rest_bytes = data_bytes()
        stream.write(json.dumps({"protections": confine(), "at_rest_bytes": at_rest_bytes}).encode() + b"\n")
        stream.flush()
        while line := stream.readline():
            request = json.loads(line)
            if at_rest_bytes:  # on Linux; elsewhere the limit does not count what libraries ask of the kernel
                limit_bytes = at_rest_bytes + request["memory_bytes"]
                resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, resource.RLIM_INFINITY))
            photo = stream.read(request["n_bytes"])
            # The kernel ends the process when it has used this much CPU time for the photo.
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            answer, content = _decode(photo, request)
            del photo  # before the answer: what the process keeps is measured after it
            stream.write(json.dumps(answer).encode() + b"\n" + content)
            stream.flush()
            signal.setitimer(signal.ITIMER_PROF, 0)
            if not content:
                gc.collect()  # the exception and its frames refer to each other, and to the photo


def _silence_libraries(descriptor: int) -> None:
    """Write only Python's own messages to the descriptor, not what image libraries print about a file."""
    logging.disable()
    sys.stderr = os.fdopen(os.dup(descriptor), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _decode(photo: bytes, request: dict[str, Any]) -> tuple[dict[str, object], bytes]:
    """Decode one photo.

    Returns:
        The JSON line of the answer, and the content that follows it: pixels and working copy, a thumbnail, or a size.
    """
    limits = {name: request[name] for name in ("max_pixels", "max_decoding_bytes")}
    try:
        image = open_photo(photo, **limits)
        if "thumbnail_px" in request:
            content = thumbnail(image, request["thumbnail_px"])
        elif "size" in request:
            content = json.dumps(upright_size(image)).encode()
        else:
            box = Box(*request["box"]) if request["box"] else None
            spec = PreprocessSpec.model_validate(request["spec"])
            content = render(image, spec, box, max_decoding_bytes=limits["max_decoding_bytes"]).tobytes()
            content += working_copy(image) if request["keep"] else b""
    except PhotoTooHeavy as refusal:
        return {"code": refusal.code, "detail": str(refusal), "too_heavy": True}, b""
    except MemoryError:
        error: InputError = PhotoUndecodable("the photo takes far more memory than one of its size; save it again")
    except InputError as refusal:
        error = refusal
    else:
        return {"n_bytes": len(content)}, content
    return {"code": error.code, "detail": str(error)}, b""


if __name__ == "__main__":
    main()
