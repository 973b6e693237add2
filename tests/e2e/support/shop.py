"""A shop: clients that put photos live, take photos out, and look whether searches go by it."""

import threading
import time
from collections.abc import Mapping, Sequence

from tests.conftest import encode, noise_image
from tests.e2e.support.clients import Clients
from tests.e2e.support.ledger import Ledger

VISIBLE_WITHIN_S = 2.0
_K = 10
_SAME = 0.99  # a photo's score with itself

STOCK = {"put": 5, "delete": 3, "look_for_there": 6, "look_for_gone": 6}


class Shelf:
    """What has been put and deleted, for every client to check its answers by; thread-safe.

    Args:
        catalogue: photos of the catalogue that may be deleted, by id.

    Attributes:
        there: photos that were put, or may be deleted, and since when searches must find them.
        gone: photos that were deleted, and since when searches must not find them.
    """

    def __init__(self, catalogue: Mapping[str, bytes]) -> None:
        self._lock = threading.Lock()
        self.there: dict[str, tuple[bytes, float]] = {image_id: (photo, 0.0) for image_id, photo in catalogue.items()}
        self.gone: dict[str, tuple[bytes, float]] = {}

    def put(self, image_id: str, photo: bytes) -> None:
        with self._lock:
            self.there[image_id] = (photo, time.monotonic() + VISIBLE_WITHIN_S)

    def take(self, image_id: str) -> bytes | None:
        """What is about to be deleted is neither there nor gone; None: another client was first."""
        with self._lock:
            return self.there.pop(image_id, (None, 0.0))[0]

    def deleted(self, image_id: str, photo: bytes) -> None:
        with self._lock:
            self.gone[image_id] = (photo, time.monotonic() + VISIBLE_WITHIN_S)

    def settled(self, shelf: Mapping[str, tuple[bytes, float]], at: float) -> dict[str, bytes]:
        """Photos by id for which what must be seen must have been seen by then."""
        with self._lock:
            return {image_id: photo for image_id, (photo, since) in shelf.items() if since <= at}

    def complaint(self, job: Mapping[str, object], sent_at: float, wanted: str | None) -> str | None:
        """What is wrong with a search's answer, if anything.

        Args:
            job: as it was read at its end; one that has not succeeded has no answer.
            sent_at: monotonic time at which it had not been sent yet.
            wanted: photo that must be found as itself.
        """
        if job["status"] != "succeeded":
            return None
        result = job["result"]
        assert isinstance(result, dict)
        scores = {str(one["image_id"]): float(one["score"]) for one in result["neighbours"]}
        which = f"job {job['id']} of index {result['index_version']}"
        if found := self.settled(self.gone, sent_at).keys() & scores.keys():
            return f"{which} found {' '.join(found)}, deleted before it was sent"
        if wanted is not None and scores.get(wanted, 0.0) < _SAME:
            best = next(iter(scores.items()), None)
            return f"{which} did not find {wanted} as itself ({scores.get(wanted)}), but first {best}"
        return None


class Shop(Clients):
    """Clients that change what is searched, and check it again and again.

    Args:
        shelf: shared by all clients of a service.
        categories: of which photos are put.

    Attributes:
        changes: how many jobs changed something.
    """

    def __init__(
        self, ledger: Ledger, shelf: Shelf, categories: Sequence[str], *, per_s: float, n_threads: int, seed: int
    ) -> None:
        super().__init__(ledger, [b""], per_s=per_s, n_threads=n_threads, mix=STOCK, seed=seed)
        self.changes = 0
        self._shelf = shelf
        self._categories = categories
        self._seed = seed
        self._calls |= {
            "put": self._put,
            "delete": self._delete,
            "look_for_there": self._look_for_there,
            "look_for_gone": self._look_for_gone,
        }

    def look_for_all(self) -> None:
        """Check everything once, in the caller's thread."""
        for shelf, there in ((self._shelf.there, True), (self._shelf.gone, False)):
            for image_id, photo in self._shelf.settled(shelf, time.monotonic()).items():
                self._look(f"{self._name}-last-{image_id}", image_id, photo, there=there)

    def _put(self, key: str, _: bytes) -> None:
        image_id = f"live-{key}"
        number = int(key.rpartition("-")[2])
        photo = encode(noise_image(1_000_000 * self._seed + number))
        said = {"listing_id": f"live-{self._seed}-{number // 2}", "category": self._rng.choice(self._categories)}
        if self._done(key, "PUT", image_id, files={"image": photo}, data=said):
            self._shelf.put(image_id, photo)

    def _delete(self, key: str, _: bytes) -> None:
        settled = self._shelf.settled(self._shelf.there, time.monotonic())
        if not settled:
            return
        image_id = self._rng.choice(list(settled))
        photo = self._shelf.take(image_id)
        if photo is not None and self._done(key, "DELETE", image_id):
            self._shelf.deleted(image_id, photo)

    def _done(self, key: str, method: str, image_id: str, **content: object) -> bool:
        """Whether a change has succeeded; of one that has not nothing is known."""
        job = self._send(f"/v1/images/{image_id}", key, method=method, **content)
        self.ledger.accept(str(job["id"]), key)
        ended = self._wait(str(job["id"]), time.monotonic())
        succeeded = ended is not None and ended["status"] == "succeeded"
        self.changes += succeeded
        return succeeded

    def _look_for_there(self, key: str, _: bytes) -> None:
        self._look_for_one(key, self._shelf.there, there=True)

    def _look_for_gone(self, key: str, _: bytes) -> None:
        self._look_for_one(key, self._shelf.gone, there=False)

    def _look_for_one(self, key: str, shelf: Mapping[str, tuple[bytes, float]], *, there: bool) -> None:
        settled = self._shelf.settled(shelf, time.monotonic())
        if settled:
            image_id = self._rng.choice(list(settled))
            self._look(key, image_id, settled[image_id], there=there)

    def _look(self, key: str, image_id: str, photo: bytes, *, there: bool) -> None:
        sent_at = time.monotonic()
        job = self._send("/v1/jobs/search", key, files={"image": photo}, data={"k": _K})
        self.ledger.accept(str(job["id"]), key)
        ended = self._wait(str(job["id"]), sent_at)
        if ended is None:
            return
        # It may have been taken out meanwhile.
        wanted = image_id if there and image_id in self._shelf.there else None
        if complaint := self._shelf.complaint(ended, sent_at, wanted):
            self.errors.append(complaint)
