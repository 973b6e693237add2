"""A small installation, prepared as `lookalike prepare` does, for tests that change copies of it."""

import csv
import hashlib
import io
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import openvino

from pipeline.building.export import Graph, features_graph, graph_files
from pipeline.building.index import Prepared, prepare
from shared.model.bundle import GRAPH
from shared.model.network import Network
from shared.settings import Backbone, Settings
from tests.support.once import made_once_in

_graphs: dict[str, Graph] = {}


def graph_of_same_weights(network: Network, size_px: int) -> Graph:
    """`features_graph`, made once for the same weights: it takes longer than all else that a small catalogue needs.

    Processes that are given the same TEST_MADE share it.
    """
    digest = hashlib.sha256(str(size_px).encode())
    for name, value in network.features.state_dict().items():
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    key = digest.hexdigest()
    if key not in _graphs:
        if shared := os.environ.get("TEST_MADE"):
            directory = made_once_in(
                Path(shared), f"graph-{key[:16]}", lambda made: _save_graph(made, network, size_px)
            )
            _graphs[key] = openvino.Core().read_model(directory / GRAPH)
        else:
            _graphs[key] = features_graph(network, size_px)
    return _graphs[key].clone()


def _save_graph(directory: Path, network: Network, size_px: int) -> None:
    directory.mkdir()
    for name, content in graph_files(features_graph(network, size_px)).items():
        (directory / name).write_bytes(content)


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
        with mock.patch("pipeline.building.bundle.features_graph", graph_of_same_weights):
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
