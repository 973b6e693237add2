"""Clients that ask again as soon as they are answered: `python -m tests.benchmarks.support.clients`, a process apart.

Nothing but the standard library and one connection a client, so that on shared cores they cost little.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

_BOUNDARY = "photo-follows"
_TIMEOUT_S = 60


@dataclass(frozen=True)
class Load:
    """What is asked, by how many, for how long.

    Attributes:
        photos: a directory of JPEGs, asked for in turn: more of them than clients, or some would be shared in flight.
        multipart: send the photo in a form; else it is the body.
        warm_s: at the beginning, without being counted.
        texts: words to send with each photo, in the order of their names; none: none are sent.
    """

    port: int
    path: str
    photos: str
    n_clients: int
    seconds: float
    warm_s: float
    multipart: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)


@dataclass
class Asked:
    """What the clients saw of the requests that ended in time.

    Attributes:
        cpu_s: processor time of the clients themselves meanwhile.
        n_answers: of the whole run, and `whole_cpu_s` the clients' processor time for all of them.
        compute_ms: the answers' own `timing_ms.compute`, where they have it.
    """

    elapsed_s: float
    cpu_s: float
    latencies_s: list[float] = field(default_factory=list)
    compute_ms: list[float] = field(default_factory=list)
    queued_ms: list[float] = field(default_factory=list)
    refused: int = 0
    n_answers: int = 0
    whole_cpu_s: float = 0.0

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.elapsed_s


def ask(load: Load) -> Asked:
    """Run clients to their end in another process."""
    command = [sys.executable, "-m", "tests.benchmarks.support.clients", json.dumps(asdict(load))]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return Asked(**json.loads(answer))


def _run(load: Load) -> Asked:
    photos = sorted(Path(load.photos).iterdir())
    texts = load.texts or [""] * len(photos)
    bodies = [_body(path.read_bytes(), load.multipart, text) for path, text in zip(photos, texts, strict=True)]
    kind = f"multipart/form-data; boundary={_BOUNDARY}" if load.multipart else "image/jpeg"
    headers = {"Content-Type": kind, **load.headers}
    began = time.perf_counter()
    counted_from, until = began + load.warm_s, began + load.warm_s + load.seconds
    asked = Asked(elapsed_s=load.seconds, cpu_s=0)
    numbers = count()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", load.port, timeout=_TIMEOUT_S)
        while (sent := time.perf_counter()) < until:
            connection.request("POST", load.path, bodies[next(numbers) % len(bodies)], headers)
            answer = connection.getresponse()
            content = answer.read()
            ended = time.perf_counter()
            asked.n_answers += 1
            if not counted_from <= ended < until:
                continue
            if answer.status != 200:
                asked.refused += 1
                continue
            asked.latencies_s.append(ended - sent)
            if load.n_clients == 1:  # reading answers costs more than asking
                timing = (json.loads(content).get("result") or {}).get("timing_ms") or {}
                if timing:
                    asked.compute_ms.append(timing["compute"])
                    asked.queued_ms.append(timing["queued"])

    threads = [threading.Thread(target=client) for _ in range(load.n_clients)]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, counted_from - time.perf_counter()))
    cpu_s = time.process_time()
    time.sleep(max(0.0, until - time.perf_counter()))
    asked.cpu_s = time.process_time() - cpu_s
    for thread in threads:
        thread.join()
    asked.whole_cpu_s = time.process_time()
    return asked


def _body(photo: bytes, multipart: bool, text: str) -> bytes:
    if not multipart:
        return photo
    words = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\n{text}\r\n' if text else ""
    head = f'{words}--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="p.jpg"\r\n\r\n'
    return head.encode() + photo + f"\r\n--{_BOUNDARY}--\r\n".encode()


if __name__ == "__main__":
    print(json.dumps(asdict(_run(Load(**json.loads(sys.argv[1]))))))
