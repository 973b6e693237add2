"""A librarian: a client that adds listings to the catalogue and has it reindexed, again and again."""

import csv
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.e2e.support.clients import Clients
from tests.e2e.support.ledger import Ledger

_PATIENCE_S = 300.0


class Shelves:
    """A catalogue that begins as a part of another one and grows by its listings.

    Args:
        whole: directory of the other one.
        write: puts a file of the catalogue, by its name in there, where the service reads it.
        n_listings: that are there already.
    """

    def __init__(self, whole: Path, write: Callable[[str, bytes], object], *, n_listings: int = 0) -> None:
        self._whole = whole
        self._write = write
        self._products = _rows(whole / "Products.csv")
        self._photos = _rows(whole / "Images.csv")
        self._n_listings = n_listings

    def grow(self, n_listings: int) -> None:
        """Add so many listings, as long as there are some left: first their photos, then the tables."""
        before = {row["id"] for row in self.images()}
        self._n_listings += n_listings
        images = self.images()
        for row in images:
            if row["id"] not in before:
                name = f"images/{row['id']}.jpg"
                self._write(name, (self._whole / name).read_bytes())
        self._write("Products.csv", _table(self._products[: self._n_listings]))
        self._write("Images.csv", _table(images))

    def images(self) -> list[dict[str, str]]:
        """Rows of the photos that are there."""
        ids = {row["id"] for row in self._products[: self._n_listings]}
        return [row for row in self._photos if row["product_id"] in ids]


class Librarian(Clients):
    """Adds listings and reindexes, one after the other.

    Args:
        ledger: of a key that may reindex.
        every_s: from one reindex to the next, on average.
        n_listings: that are added before each.

    Attributes:
        outcomes: what became of the reindexes, in words.
    """

    def __init__(self, ledger: Ledger, shelves: Shelves, *, every_s: float, n_listings: int, seed: int) -> None:
        super().__init__(ledger, [b""], per_s=1 / every_s, n_threads=1, mix={"reindex": 1}, seed=seed)
        self.outcomes: Counter[str] = Counter()
        self._shelves = shelves
        self._n_listings = n_listings
        self._calls["reindex"] = self._reindex

    def _reindex(self, key: str, _: bytes) -> None:
        self._shelves.grow(self._n_listings)
        job = self._send("/v1/jobs/reindex", key, json={"promote": "if_better"})
        self.ledger.accept(str(job["id"]), key)
        ended = self._wait(str(job["id"]), patience_s=_PATIENCE_S)
        if ended is None:
            self.outcomes["not ended in time"] += 1
        elif ended["status"] != "succeeded":
            error = ended["error"]
            assert isinstance(error, dict), ended
            self.outcomes[f"failed as {error['code']}"] += 1
        else:
            result = ended["result"]
            assert isinstance(result, dict)
            self.outcomes["promoted" if result["promoted"] else f"not promoted: {result['decision']}"] += 1


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as table:
        return list(csv.DictReader(table))


def _table(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
