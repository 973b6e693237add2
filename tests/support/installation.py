"""A small installation, prepared as `lookalike prepare` does, for tests that change copies of it."""

import csv
import io
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.building.index import Prepared, prepare
from shared.settings import Backbone, Settings


@dataclass
class Installation:
    """One LOOKALIKE_HOME and what was said while it was prepared."""

    home: Path
    catalogue: Path
    said: list[str] = field(default_factory=list)

    def settings(self, **changed: object) -> Settings:
        given = {
            "home": self.home,
            "catalogue": self.catalogue,
            "backbone": Backbone.EFFICIENTNET_LITE0,
            "precision": "float32",
        }
        return Settings.model_validate({**given, **changed})

    def prepare(self, *, rebuild_index: bool = False, **changed: object) -> Prepared:
        self.said.clear()
        return prepare(self.settings(**changed), self.said.append, rebuild_index=rebuild_index)

    def heard(self, *words: str) -> bool:
        """Whether one line holds all the words."""
        return any(all(word in line for word in words) for line in self.said)

    def copy(self, directory: Path) -> "Installation":
        shutil.copytree(self.home, directory / "home")
        shutil.copytree(self.catalogue, directory / "catalogue")
        return Installation(directory / "home", directory / "catalogue")

    def keep_photos(self, n: int) -> None:
        """Leave only the first photos in Images.csv."""
        table = self.catalogue / "Images.csv"
        table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[: n + 1]))

    def photo_rows(self) -> list[dict[str, str]]:
        """The rows of Images.csv."""
        return list(csv.DictReader(io.StringIO((self.catalogue / "Images.csv").read_text())))

    def photo(self, image_id: str) -> Path:
        return self.catalogue / "images" / f"{image_id}.jpg"
