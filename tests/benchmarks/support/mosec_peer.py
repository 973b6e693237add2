"""The peer on mosec; `tests.benchmarks.support.peers` says what it answers. Processes of mosec import this again."""

import json
import os
from typing import Any

from mosec import Server, Worker

from tests.benchmarks.support.peers import Answerer

_MAX_BATCH = 8
_MAX_WAIT_MS = 10  # mosec's default


class Embed(Worker):  # type: ignore[misc]
    """Decoding and model in one stage: photos travel between its processes as JPEG, the smallest they can be."""

    def __init__(self) -> None:
        super().__init__()
        self._answerer = Answerer()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[dict[str, Any]]:
        return self._answerer.answer(data)

    def serialize(self, data: dict[str, Any]) -> bytes:
        return json.dumps(data).encode()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Embed, num=len(os.sched_getaffinity(0)), max_batch_size=_MAX_BATCH, max_wait_time=_MAX_WAIT_MS)
    server.run()
