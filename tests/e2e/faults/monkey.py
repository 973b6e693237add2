"""Monkey and supervisor: one breaks parts of a fleet at random, the other starts again what has died."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import redis

from shared.artifacts.snapshots import index_store
from shared.errors import ArtifactError
from tests.e2e.support.fleet import Fleet
from tests.support.milvus import MilvusLite
from tests.support.object_store import Proxy
from tests.support.signals import send


class Supervisor(threading.Thread):
    """Starts again whatever has died; what is frozen is left alone.

    Args:
        parts: names of those to keep running.

    Attributes:
        troubles: what could not be mended, when it was tried.
    """

    def __init__(self, fleet: Fleet, parts: Sequence[str], rng: random.Random) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._fleet = fleet
        self._parts = parts
        self._rng = rng
        self._stopping = threading.Event()
        self.mending = threading.Lock()
        self.troubles: list[str] = []

    def run(self) -> None:
        while not self._stopping.wait(0.2):
            with self.mending:
                try:
                    self._mend()
                except (AssertionError, redis.RedisError) as exc:
                    self.troubles.append(f"supervisor: {exc!r}")

    def _mend(self) -> None:
        if not self._fleet.valkey_alive():
            self._stopping.wait(self._rng.uniform(0, 3))
            self._fleet.restart_valkey()
        for name in self._parts:
            if not self._fleet.alive(name):
                self._fleet.start(name)

    def stop(self) -> None:
        self._stopping.set()
        self.join()


class Monkey:
    """Faults chosen at random; a frozen worker stays so while the next ones happen.

    Args:
        versions: gives those of the index that may be promoted.
        workers: names of the fleet's.
        spared: parts that are frozen, but never killed or stopped.
        lease_s: of the workers.
        store: between the parts and the object store, if there is one.
        milvus: with the vectors, if it has them.

    Attributes:
        faults: how many of each kind.
        thaws: of frozen workers, to be waited for.
    """

    def __init__(
        self,
        fleet: Fleet,
        versions: Callable[[], Sequence[str]],
        rng: random.Random,
        *,
        workers: Sequence[str],
        spared: Sequence[str],
        lease_s: float,
        store: Proxy | None,
        milvus: MilvusLite | None,
    ) -> None:
        self.faults: Counter[str] = Counter()
        self.thaws: list[threading.Timer] = []
        self._fleet = fleet
        self._versions = versions
        self._rng = rng
        self._workers = workers
        self._mortal = [name for name in workers if name not in spared]
        self._lease_s = lease_s
        self._store = store
        self._milvus = milvus
        self._kinds: dict[Callable[[], None], int] = {
            self.kill_worker: 3,
            self.freeze_worker_past_its_lease: 2,
            self.freeze_then_kill_worker: 2,
            self.stop_worker: 2,
            self.kill_redis: 3,
            self.freeze_redis: 1,
            self.drop_clients_of_redis: 2,
            self.kill_api: 3,
            self.promote: 3,
        }
        if store:
            self._kinds |= {self.cut_off_the_store: 2, self.silence_the_store: 1}
        if milvus:
            self._kinds[self.freeze_milvus] = 1

    def strike(self) -> None:
        fault = self._rng.choices(list(self._kinds), list(self._kinds.values()))[0]
        try:
            fault()
        except redis.RedisError:  # of a Redis that is on its way up
            self.faults[f"{fault.__name__} missed"] += 1
        else:
            self.faults[fault.__name__] += 1

    def kill_worker(self) -> None:
        self._fleet.kill(self._rng.choice(self._mortal))

    def freeze_worker_past_its_lease(self) -> None:
        frozen = self._fleet.processes[self._rng.choice(self._workers)]
        send(frozen, signal.SIGSTOP)
        thaw = threading.Timer(self._lease_s + 3, frozen.send_signal, [signal.SIGCONT])
        thaw.start()
        self.thaws = [one for one in self.thaws if one.is_alive()] + [thaw]

    def freeze_then_kill_worker(self) -> None:
        name = self._rng.choice(self._mortal)
        self._fleet.signal(name, signal.SIGSTOP)
        time.sleep(self._rng.uniform(0.1, 1))
        self._fleet.kill(name)

    def stop_worker(self) -> None:
        self._fleet.signal(self._rng.choice(self._mortal), signal.SIGTERM)

    def kill_redis(self) -> None:
        self._fleet.signal_valkey(signal.SIGKILL)

    def freeze_redis(self) -> None:
        thaw = self._fleet.freeze_valkey()
        time.sleep(self._rng.uniform(1, 5))
        thaw()

    def drop_clients_of_redis(self) -> None:
        with self._fleet.client() as client:
            for _ in range(3):
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                time.sleep(0.5)

    def kill_api(self) -> None:
        self._fleet.kill("api")

    def promote(self) -> None:
        store = index_store(self._fleet.location)
        current = store.current()
        if others := [version for version in self._versions() if version != current]:
            with suppress(ArtifactError):  # a reindex may have removed it
                store.promote(self._rng.choice(others))

    def cut_off_the_store(self) -> None:
        assert self._store
        with self._store.away():
            time.sleep(self._rng.uniform(2, 8))

    def silence_the_store(self) -> None:
        assert self._store
        self._store.silent.set()
        time.sleep(self._rng.uniform(1, 5))
        self._store.silent.clear()

    def freeze_milvus(self) -> None:
        assert self._milvus
        self._milvus.signal(signal.SIGSTOP)
        time.sleep(self._rng.uniform(1, 3))
        self._milvus.signal(signal.SIGCONT)
