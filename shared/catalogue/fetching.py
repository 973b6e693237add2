"""Fetches the photos that a table names by URL, once: they are kept, and asked for again only if they have changed."""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from shared.artifacts import Location
from shared.artifacts.backends import backend_at
from shared.catalogue.decode import ahead
from shared.catalogue.photo_files import FetchedPhoto, FetchPhotos, FileProblem
from shared.catalogue.scan import Stat
from shared.errors import ArtifactUnwritable
from shared.outbound.connections import Unanswered
from shared.outbound.downloads import Downloader, Validators
from shared.outbound.hosts import AllowedHosts, UrlRefused, parse_hosts
from shared.progress import ReportProgress
from shared.settings import Settings

PARALLEL = 8
_FOLDER = "fetched-photos"
_GIVEN_UP_AFTER = 5  # photos of one host in a row that it did not answer for
_SILENCE = ("timeout", "unreachable", "unresolved", "tls_failed")
_GONE = ("status_404", "status_410")
_NOT_ALLOWED, _NOT_FETCHED = "photo url may not be fetched", "photo cannot be fetched"
_NOT_ASKED = "photo is as fetched earlier"
_FORMAT = 1
_UNUSED_S = 30 * 86_400  # after which photos whose URLs no table has any more are removed

_TOLD_EVERY_S = 5.0

ReportFetched = Callable[[int, int], object]  # how many of how many photos are done


class _Kept(NamedTuple):
    """A photo in the cache."""

    photo: FetchedPhoto
    validators: Validators


class PhotoCache:
    """Photos by URL, in the storage that all workers share.

    Two files a URL: the photo, and a note of what the host said of it, which is written last and names the photo.

    Args:
        storage: of the installation.
    """

    def __init__(self, storage: Location) -> None:
        self._files = backend_at(storage, _FOLDER)

    def read(self, url: str) -> _Kept | None:
        """Return the photo of a URL; None if it is not there.

        Raises:
            StoreUnavailable: the object store does not answer.
        """
        try:
            note = json.loads(self._files.at(f"{_key(url)}.json").read_bytes())
            if note["format"] != _FORMAT or note["url"] != url:
                return None
            photo = self._photo(url, str(note["sha256"]), int(note["n_bytes"]))
            kept = _Kept(photo, Validators(str(note["etag"]), str(note["last_modified"])))
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None
        return kept if kept.photo.file.is_file() else None

    def keep(self, url: str, content: bytes, validators: Validators) -> FetchedPhoto:
        """Keep the photo of a URL, over what was there.

        Raises:
            ArtifactUnwritable, StoreUnavailable: it cannot be written.
        """
        before = self.read(url)
        sha256 = hashlib.sha256(content).hexdigest()
        self._files.write(_name(url, sha256), content)
        note = {
            "format": _FORMAT,
            "url": url,
            "sha256": sha256,
            "n_bytes": len(content),
            "etag": validators.etag,
            "last_modified": validators.last_modified,
        }
        self._files.write(f"{_key(url)}.json", json.dumps(note).encode())
        photo = self._photo(url, sha256, len(content))
        if before and before.photo.stat != photo.stat:
            self._files.remove([_name(url, str(before.photo.stat.identity))])
        return photo

    def sweep(self, urls: Iterable[str]) -> None:
        """Remove photos that were fetched more than a month ago, but for those of these URLs."""
        keys = {_key(url) for url in urls}
        self._files.sweep(_UNUSED_S, keep=lambda name: name.removesuffix(".json").partition("-")[0] in keys)

    def _photo(self, url: str, sha256: str, n_bytes: int) -> FetchedPhoto:
        # Its digest is in its name, so it never changes, and is read by the catalogue once.
        return FetchedPhoto(self._files.at(_name(url, sha256)), Stat(n_bytes, 0, sha256))


class PhotoFetcher:
    """Fetches photos by URL, several at a time, and keeps them; safe to call from one thread at a time.

    Args:
        allowed: hosts that may be asked.
        cache: keeps what was fetched.
        downloader: asks the hosts.
    """

    def __init__(self, allowed: AllowedHosts, cache: PhotoCache, downloader: Downloader) -> None:
        self._allowed = allowed
        self._cache = cache
        self._downloader = downloader
        self._silence: Counter[str] = Counter()  # photos in a row without an answer, by host
        self._lock = threading.Lock()

    @classmethod
    def by(cls, settings: Settings) -> "PhotoFetcher":
        """Fetch from the hosts that the settings list, into the installation's storage."""
        allowed = AllowedHosts(parse_hosts(settings.photo_hosts or ""), settings.photo_allow_private, "photo's URL")
        downloader = Downloader(allowed, max_bytes=settings.max_upload_mb << 20)
        return cls(allowed, PhotoCache(settings.storage), downloader)

    def fetch(
        self, urls: Sequence[str], report: ReportFetched = lambda done, total: None
    ) -> dict[str, FetchedPhoto | FileProblem]:
        """Fetch photos, or see to it that those that are kept are still what their hosts have.

        What was fetched stays when this ends early. A host that does not answer for several photos in a row is not
        asked for the others.

        Args:
            urls: of the photos.
            report: called after each of them, in this thread.

        Returns:
            by URL: the photo, or why there is none.

        Raises:
            StoreUnavailable: the object store does not answer.
        """
        wanted = list(dict.fromkeys(urls))
        self._silence.clear()
        found: dict[str, FetchedPhoto | FileProblem] = {}
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="fetch") as pool:
            for url, photo in ahead(pool, self._fetch, wanted, n_ahead=4 * PARALLEL):
                found[url] = photo
                report(len(found), len(wanted))
        self._cache.sweep(wanted)
        return found

    def _fetch(self, url: str) -> FetchedPhoto | FileProblem:
        shown, host = _shown(url)
        if not self._allowed.hosts:
            detail = f"{shown}: LOOKALIKE_PHOTO_HOSTS lists no host; {host} would have to be in it"
            return FileProblem(_NOT_ALLOWED, detail)
        kept = self._cache.read(url)
        try:
            return self._ask(url, host, kept)
        except UrlRefused as exc:
            return FileProblem(_NOT_ALLOWED, f"{shown}: {exc} (LOOKALIKE_PHOTO_HOSTS)")
        except ArtifactUnwritable as exc:
            return FileProblem(_NOT_FETCHED, f"{shown}: it cannot be kept: {exc}")
        except Unanswered as exc:
            detail = f"{shown}: {exc.detail or exc.reason}"
            if kept and exc.reason not in _GONE:
                return kept.photo._replace(odd=FileProblem(_NOT_ASKED, detail))
            return FileProblem(_NOT_FETCHED, detail)

    def _ask(self, url: str, host: str, kept: _Kept | None) -> FetchedPhoto:
        """Ask a host for a photo, unless it is silent.

        Raises:
            UrlRefused, Unanswered, ArtifactUnwritable: there is none.
        """
        with self._lock:
            n_silent = self._silence[host]
        if n_silent >= _GIVEN_UP_AFTER:
            raise Unanswered("silent", f"{host} did not answer for {n_silent} other photos, and was not asked again")
        try:
            got = self._downloader.get(url, kept.validators if kept else None)
        except Unanswered as exc:
            self._note(host, is_silent=exc.reason in _SILENCE)
            raise
        self._note(host, is_silent=False)
        if got.content is None:
            assert kept is not None  # without validators no host says so
            return kept.photo
        return self._cache.keep(url, got.content, got.validators)

    def _note(self, host: str, *, is_silent: bool) -> None:
        with self._lock:
            self._silence[host] = self._silence[host] + 1 if is_silent else 0


def fetch_with(settings: Settings, report_progress: ReportProgress) -> FetchPhotos:
    """Return what fetches photos as the settings say, with a line of progress every few seconds."""

    def report(done: int, total: int) -> None:
        report_progress(f"asked for {done:,} of {total:,} photos by URL")

    return partial(PhotoFetcher.by(settings).fetch, report=seldom(report, _TOLD_EVERY_S))


def seldom(report: ReportFetched, every_s: float, clock: Callable[[], float] = time.monotonic) -> ReportFetched:
    """Pass on how many photos are done once in a while, and at the end."""
    told_at = clock()

    def report_seldom(done: int, total: int) -> None:
        nonlocal told_at
        if clock() >= told_at + every_s or done == total:
            told_at = clock()
            report(done, total)

    return report_seldom


def _key(url: str) -> str:
    key = hashlib.sha256(url.encode()).hexdigest()
    return f"{key[:2]}/{key}"


def _name(url: str, sha256: str) -> str:
    return f"{_key(url)}-{sha256[:32]}"


def _shown(url: str) -> tuple[str, str]:
    """A URL for people, without its query, which may hold a token; and its host with the port, if it has one."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return url[:80], ""
    return f"{parts.scheme}://{host}{parts.path}"[:160], host
