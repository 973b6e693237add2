"""`lookalike evaluate | plot` as an operator types them, over a small installation with the real network"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.evaluate import METRICS, NOTHING_UNSEEN, SPLIT_UNKNOWN, Evaluation
from pipeline.evaluation.gallery import PAGE
from shared.model.bundle import (
    HISTORY,
    REFERENCES,
    ModelBundle,
    Split,
    bundle_store,
    open_bundle,
    write_bundle_directory,
)
from shared.model.matching import Matching
from shared.text.encoder import TEXT
from tests.integration.pipeline.test_cli_index import run, run_json
from tests.support.installation import Installation

EPOCHS = [
    {"epoch": epoch, "train_loss": 2 / epoch, "val_loss": 2.2 / epoch, "train_accuracy": 0.2 * epoch}
    for epoch in (1, 2, 3)
]
FIGURES = {"confusion.png", "categories.png", "reliability.png", "abstention.png"}


@pytest.fixture
def live(built: Installation, monkeypatch: pytest.MonkeyPatch) -> ModelBundle:
    """The live bundle of an installation that is only read."""
    monkeypatch.setenv("LOOKALIKE_HOME", str(built.home))
    monkeypatch.delenv("LOOKALIKE_CATALOGUE", raising=False)
    return open_bundle(bundle_store(built.home))


def directory_of(live: ModelBundle, directory: Path, split: Split, **extra: Any) -> str:
    """A copy of the bundle that has seen other listings, as a plain directory."""
    graphs = {name: (live.directory / name).read_bytes() for name in live.manifest.graph_sha256}
    files = {name: json.dumps(content).encode() for name, content in extra.items()}
    files |= {name: (live.directory / name).read_bytes() for name in (REFERENCES, TEXT)}
    write_bundle_directory(directory, live.manifest, live.tensors(), split=split, graph_files=graphs, extra_files=files)
    return str(directory)


def test_the_live_bundle_is_measured_on_the_catalogue_used_last_as_it_was_when_it_was_built(live: ModelBundle) -> None:
    facts = run_json("evaluate")
    assert (facts["bundle"], facts["backbone"]) == (live.version, live.manifest.backbone)
    stored = Evaluation.model_validate_json((live.directory / METRICS).read_bytes())
    assert stored.summary() == live.manifest.metrics
    # The same runtime and photos; batches may be cut elsewhere, which moves the last bits.
    again = Evaluation.model_validate(facts["evaluation"])
    assert again.summary() == pytest.approx(live.manifest.metrics, abs=1e-4)


def test_a_bundle_is_no_better_than_itself_but_where_one_knows_more(live: ModelBundle, tmp_path: Path) -> None:
    matching = Matching(k=8, bias=-3.0, lead=20.0, nearness=1.0, same_from=0.5)
    knowing = replace(live, manifest=live.manifest.model_copy(update={"matching": matching}))
    bundle = directory_of(knowing, tmp_path / "knowing", live.split)
    text = run("evaluate", "--bundle", live.version, "--against", bundle).output
    assert re.search(r"accuracy +(\d\.\d{3}) +\1 +\+0\.000 \[\+0\.000, \+0\.000\]", text)
    assert re.search(r"match_ece +- +0\.\d{3}$", text, re.MULTILINE)
    alone = run("evaluate", "--bundle", bundle).output
    assert re.search(r"certainly the same +\d\.\d{3} of the queries", alone)
    assert "certainly not here       0.000 of the queries" in alone
    assert f"{live.manifest.metrics['accuracy']:.3f}" in alone  # it is the same network
    assert "Video Games & Consoles" in alone


def test_two_bundles_are_compared_only_on_photos_that_neither_has_seen(live: ModelBundle, tmp_path: Path) -> None:
    first = min(live.split.test)
    other = directory_of(live, tmp_path / "other", Split(train=live.split.listings - {first}, test=frozenset({first})))
    facts = run_json("evaluate", "--against", other)
    assert facts["against"]["bundle"] == "other"
    assert facts["n_held_out"] == facts["against"]["n_held_out"] < live.manifest.metrics["n_held_out"]


def test_bundles_that_have_seen_everything_between_them_are_not_compared(live: ModelBundle, tmp_path: Path) -> None:
    everything = directory_of(live, tmp_path / "greedy", Split(train=live.split.listings))
    assert run_json("evaluate", "--against", everything, code=1)["error"]["code"] == "catalogue_unusable"
    assert f"note: {NOTHING_UNSEEN}" in run("evaluate", "--bundle", everything).output


def test_a_bundle_that_does_not_know_what_it_has_seen_is_compared_with_a_warning(
    live: ModelBundle, tmp_path: Path
) -> None:
    unknown = directory_of(live, tmp_path / "unknown", Split())
    assert run_json("evaluate", "--against", unknown)["notes"] == [SPLIT_UNKNOWN]


def test_what_is_no_bundle_is_named(live: ModelBundle) -> None:
    assert run_json("evaluate", "--bundle", "nonsense", code=1)["error"]["code"] == "bundle_missing"


# Pictures


def test_figures_and_training_are_drawn_without_a_catalogue(live: ModelBundle, tmp_path: Path) -> None:
    metrics = json.loads((live.directory / METRICS).read_bytes())
    bundle = directory_of(live, tmp_path / "trained", live.split, **{METRICS: metrics, HISTORY: EPOCHS})
    facts = run_json("plot", "--bundle", bundle, "--out", str(tmp_path / "out" / "here"))
    assert set(facts["pictures"]) == FIGURES | {"history.png", PAGE}
    page = (tmp_path / "out" / "here" / PAGE).read_text()
    for name in set(facts["pictures"]) - {PAGE}:
        picture = np.asarray(Image.open(tmp_path / "out" / "here" / name).convert("L"))
        assert picture.shape[0] > 300
        assert picture.std() > 5  # something is drawn
        assert f'src="{name}"' in page


def test_a_catalogue_is_drawn_with_queries_that_the_bundle_has_not_seen(
    live: ModelBundle, built: Installation, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    text = run("plot", "--catalogue", str(built.catalogue), "--out", str(out)).output
    names = {path.name for path in out.iterdir()}
    assert names == FIGURES | {"similar-1.png", "similar-2.png", "similar-3.png", "similar-4.png", "map.png", PAGE}
    assert all(name in text for name in names)


def test_the_same_bundle_gives_the_same_pictures(live: ModelBundle, tmp_path: Path) -> None:
    for out in ("first", "second"):
        run("plot", "--out", str(tmp_path / out))
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()} for out in ("first", "second")
    )
    assert first.keys() >= FIGURES
    assert first == second


def test_without_figures_or_a_catalogue_there_is_nothing_to_draw(live: ModelBundle, tmp_path: Path) -> None:
    silent = directory_of(live, tmp_path / "silent", live.split)
    assert "name a catalogue" in run("plot", "--bundle", silent, "--out", str(tmp_path / "out"), code=2).output
    foreign = directory_of(live, tmp_path / "foreign", live.split, **{METRICS: {"accuracy": 1}})
    refused = run_json("plot", "--bundle", foreign, "--out", str(tmp_path / "out"), code=1)
    assert refused["error"]["code"] == "bundle_damaged"
    greedy = json.loads((live.directory / METRICS).read_bytes()) | {"classification": None, "notes": [NOTHING_UNSEEN]}
    seen = directory_of(live, tmp_path / "seen", live.split, **{METRICS: greedy})
    refused = run_json("plot", "--bundle", seen, "--out", str(tmp_path / "out"), code=1)
    assert NOTHING_UNSEEN in refused["error"]["detail"]


def test_a_place_that_cannot_be_written_is_named(live: ModelBundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused = run_json("plot", "--out", str(tmp_path / "file" / "out"), code=1)
    assert refused["error"]["code"] == "artifact_unwritable"
