"""`lookalike train` as an engineer types it: from a raw dump to a bundle that answers, here and carried elsewhere."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from pipeline.cli.main import main
from shared.model.bundle import bundle_store, open_bundle, open_bundle_directory
from shared.model.runtimes import open_embedder
from tests.support.once import demo_catalogue

QUICK = ("--epochs", "1", "--size", "64", "--backbone", "efficientnet_lite0")


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_catalogue(tmp_path_factory)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: activations are made once."""
    return tmp_path_factory.mktemp("factory") / "home"


@pytest.fixture(autouse=True)
def installed(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LOOKALIKE_HOME", str(home))
    monkeypatch.setenv("LOOKALIKE_PRECISION", "float32")
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # others compute too
    yield
    torch.set_num_threads(n_threads)


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments: str, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


def test_a_raw_dump_becomes_a_bundle_directory_that_can_be_promoted_and_measured(dump: Path, tmp_path: Path) -> None:
    out = tmp_path / "trained"
    made = run_json("train", "--catalogue", str(dump), "--recipe", "metric", "--out", str(out), *QUICK)
    bundle = open_bundle_directory(out)
    assert bundle.manifest.recipe == "metric"
    assert bundle.manifest.preprocess.size_px == 64
    assert made["metrics"] == bundle.manifest.metrics
    assert "accuracy" in made["metrics"]
    assert json.loads((out / "training.json").read_bytes())["projection"] == made["notes"]["projection"]
    assert len(json.loads((out / "history.json").read_bytes())) == 1
    assert (Path(made["pictures"]) / "index.html").is_file()
    promoted = run_json("bundle", "promote", str(out))
    live = open_bundle(bundle_store(Path(made["pictures"]).parent.parent))
    assert (promoted["live"], live.manifest.fingerprint) == (live.version, bundle.manifest.fingerprint)
    measured = run_json("evaluate", "--catalogue", str(dump))
    assert measured["accuracy"] == pytest.approx(made["metrics"]["accuracy"])


def test_a_model_whose_stages_were_trained_waits_in_the_store_until_it_is_promoted(dump: Path, home: Path) -> None:
    made = run_json("train", "--catalogue", str(dump), "--recipe", "finetune", *QUICK)
    assert bundle_store(home).current() != made["bundle"]  # nothing goes live by itself
    bundle = open_bundle(bundle_store(home), made["bundle"])
    assert open_embedder(bundle).manifest.embedding_dim == bundle.manifest.embedding_dim


def test_a_place_that_is_taken_is_refused_before_anything_is_trained(dump: Path, tmp_path: Path) -> None:
    refused = run_json("train", "--catalogue", str(dump), "--out", str(tmp_path), code=1)
    assert refused["error"]["code"] == "artifact_unwritable"
    assert "name a directory that is not" in refused["error"]["detail"]


def test_an_unknown_recipe_is_told_the_known_ones(dump: Path) -> None:
    result = run("train", "--catalogue", str(dump), "--recipe", "magic", code=2)
    assert "head, finetune, metric" in result.output
