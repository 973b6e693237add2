"""Finds the file of each photo id, and says for those without one what was looked for and what is there instead."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from shared.artifacts.files import ObjectFile
from shared.attributes.configuration import CONFIGURATION
from shared.catalogue.photo_paths import ONE_A_ROW, PhotoPaths, PhotoPlace, is_several
from shared.catalogue.rows import ROUNDED_DETAIL
from shared.catalogue.scan import ENDINGS, Scan, Stat
from shared.catalogue.spoiled_ids import (
    by_key,
    caseless,
    composed,
    is_rounded,
    number_key,
    similar_ids,
    similar_keys,
)

AMBIGUOUS, NO_FILE = "photo file is ambiguous", "photo without file"
_N_NAMED = 4


class FileProblem(NamedTuple):
    """Why a photo has no file.

    Attributes:
        reason: one of a fixed set of texts.
        detail: for people.
    """

    reason: str
    detail: str


class FoundFile(NamedTuple):
    """The file of a photo.

    Attributes:
        address: of the file.
        stat: its metadata.
        read_as: the id that is meant, where the one in the table was spoiled.
        odd: reason and detail, where the table says something else of it.
    """

    address: str
    stat: Stat
    read_as: str = ""
    odd: FileProblem | None = None


class FetchedPhoto(NamedTuple):
    """A photo that was fetched by its URL.

    Attributes:
        file: where it is kept.
        stat: its metadata.
        odd: reason and detail, where its host could not be asked for it again.
    """

    file: Path | ObjectFile
    stat: Stat
    odd: FileProblem | None = None


FetchPhotos = Callable[[Sequence[str]], Mapping[str, FetchedPhoto | FileProblem]]  # by URL


class PhotoFiles:
    """Finds the files of photo ids: by the exact name, or else by one that differs in case or Unicode form only, or in
    what spreadsheets do to numbers; or by the id as the whole name of a file, where no other id means that.

    Ids such as base62 tell upper from lower case, so a name that is not exact counts only where it is the one file that
    can be meant, and the id the one that can mean it.

    Args:
        found: the listing of the catalogue.
        image_ids: all ids of the catalogue, or the names of their files.
    """

    def __init__(self, found: Scan, image_ids: Iterable[str]) -> None:
        self._found = found
        self._paths = PhotoPaths(found)
        self._addresses: dict[str, Path | ObjectFile] = {}
        self._fetched: Mapping[str, FetchedPhoto | FileProblem] = {}
        self._image_ids = frozenset(image_ids)
        # By each way to compare names; made when the first id has no file of its exact name.
        self._names: list[tuple[Callable[[str], str | None], dict[str, list[str]], dict[str, list[str]]]] = []
        self._similar: dict[str, str] = {}

    def fetch(self, places: Iterable[tuple[str, PhotoPlace]], fetch: FetchPhotos | None) -> bool:
        """Fetch the photos that have no file, but a URL; `find` has them then.

        Args:
            places: image ids, each with where the table says that the photo is, which has a URL.
            fetch: fetches them; None: they are not fetched here.

        Returns:
            whether there are such photos.
        """
        urls = [place.url for image_id, place in places if image_id and self._lacks_file(image_id, place)]
        if urls and fetch:
            self._fetched = fetch(urls)
        return bool(urls)

    def _lacks_file(self, image_id: str, place: PhotoPlace) -> bool:
        file = self._on_file(image_id, place)
        return isinstance(file, FileProblem) and file.reason == NO_FILE

    def fetched_file(self, address: str) -> Path | ObjectFile | None:
        """The file of an address, if it is that of a photo that was fetched."""
        if not self._addresses:
            fetched = (photo for photo in self._fetched.values() if isinstance(photo, FetchedPhoto))
            self._addresses = {str(photo.file): photo.file for photo in fetched}
        return self._addresses.get(address)

    def find(self, image_id: str, place: PhotoPlace | None = None) -> FoundFile | FileProblem:
        """Return a photo's file, or why there is none.

        Args:
            image_id: of the photo.
            place: where the table says that it is.
        """
        file = self._on_file(image_id, place)
        if place is None or not place.url or not (isinstance(file, FileProblem) and file.reason == NO_FILE):
            return file
        fetched = self._fetched.get(place.url)
        if fetched is None:
            return FileProblem(NO_FILE, f"{file.detail}; its url is not fetched by this command")
        if isinstance(fetched, FileProblem):
            return fetched
        return FoundFile(str(fetched.file), fetched.stat, odd=fetched.odd)

    def _on_file(self, image_id: str, place: PhotoPlace | None) -> FoundFile | FileProblem:
        if place is None or not place.path:
            return self._by_id((place and place.name) or image_id)
        at = self._paths.find(place.path)
        if isinstance(at, str):
            return FoundFile(at, self._found.files[at])
        problem = FileProblem(at.reason, f"{at.detail} (column {place.column})" if place.column else at.detail)
        if place.is_sure or not at.is_missing:
            return problem
        file = self._by_id(image_id)
        if isinstance(file, FileProblem):
            return problem
        odd = FileProblem(f"column {place.column} names no photo file", f"{place.path}: read by its id")
        return file._replace(odd=odd)

    def _by_id(self, image_id: str) -> FoundFile | FileProblem:
        if image_id in self._found.photos:
            return self._named(image_id, image_id)
        if not self._names:
            self._names = [
                (key, by_key(key, self._found.photos), by_key(key, self._image_ids))
                for key in (composed, caseless, number_key)
            ]
        for make_key, files, ids in self._names:
            if (key := make_key(image_id)) is None:
                continue
            names, rivals = files.get(key, []), ids.get(key, [])
            if len(names) == 1 and len(rivals) == 1:
                return self._named(image_id, names[0], read_as=names[0] if make_key is number_key else "")
            if names:
                return FileProblem(AMBIGUOUS, self._ambiguous(image_id, names, rivals))
        if found := self._by_whole_name(image_id):
            return found
        return FileProblem(NO_FILE, self._missing(image_id))

    def _by_whole_name(self, image_id: str) -> FoundFile | FileProblem | None:
        """The file that an id is the whole name of, with its ending; None: there is none that no other id means."""
        name = image_id.rpartition(".")[0]
        if name not in self._found.photos:
            return None
        first, stat = self._found.photos[name]
        addresses = {first, *self._found.repeated.get(name, ()), *self._found.beside.get(name, ())}
        if name in self._image_ids:
            addresses.discard(first)
        alike = [address for address in sorted(addresses) if os.path.basename(address) == image_id]
        if not alike and len(self._names[1][2].get(caseless(image_id), ())) == 1:  # no other id differs in case only
            alike = [one for one in sorted(addresses) if caseless(os.path.basename(one)) == caseless(image_id)]
        if len(alike) > 1:
            return FileProblem(AMBIGUOUS, self._in_folders(image_id, alike))
        return FoundFile(alike[0], stat if alike[0] == first else self._found.files[alike[0]]) if alike else None

    def _named(self, image_id: str, name: str, read_as: str = "") -> FoundFile | FileProblem:
        """The file of a name, unless several folders have one."""
        if addresses := self._found.repeated.get(name):
            return FileProblem(AMBIGUOUS, self._in_folders(image_id, addresses))
        address, stat = self._found.photos[name]
        unread = [os.path.basename(one) for one in self._found.beside.get(name, ())]
        unread = [one for one in unread if one not in self._image_ids]
        detail = f"{os.path.basename(address)} is read, and not {', '.join(unread[:_N_NAMED])}"
        odd = FileProblem("photo with files of several endings", detail) if unread else None
        return FoundFile(address, stat, read_as, odd)

    def _in_folders(self, image_id: str, addresses: Iterable[str]) -> str:
        there = ", ".join(sorted(map(self._shown, addresses))[:_N_NAMED])
        return f"looked for {image_id} in the folders of images/; there is {there}; name one in a column path"

    def _shown(self, address: str) -> str:
        return address.removeprefix(f"{self._found.folder}/")

    def _ambiguous(self, image_id: str, names: list[str], rivals: list[str]) -> str:
        there = ", ".join(self._shown(self._found.photos[name][0]) for name in sorted(names)[:_N_NAMED])
        others = ", ".join(sorted(rival for rival in rivals if rival != image_id)[:_N_NAMED])
        may_be = f", which may be that of {others}" if others else ""
        return f"looked for images/{image_id}.jpg; there is {there}{may_be}"

    def _missing(self, image_id: str) -> str:
        if not self._similar:
            names = {name: self._shown(address) for name, (address, _) in self._found.photos.items()}
            self._similar = similar_ids({**self._found.others, **names})
        there = next((name for key in similar_keys(image_id) if (name := self._similar.get(key))), None)
        hint = f"; there is {there}" if there else ""
        if there and not there.lower().endswith(ENDINGS):
            hint += f", and only {', '.join(ENDINGS)} are read"
        if is_rounded(image_id):
            hint += f"; {ROUNDED_DETAIL}"
        elif not there and is_several(image_id):
            hint = f"; {ONE_A_ROW}"
        elif not there and self._found.closed:
            hint = f"; user {os.geteuid()} may not read {', '.join(map(self._shown, self._found.closed[:_N_NAMED]))}"
        if "/" in image_id:
            hint += f'; an id holds no slash: of a column with paths {CONFIGURATION} says path = "COLUMN" in [photos]'
        is_whole = image_id.lower().endswith(ENDINGS) and image_id.rpartition(".")[0] not in self._image_ids
        return f"looked for images/{image_id}{'' if is_whole else '.jpg'}{hint}"
