"""Training for real, on drawn photos small enough for seconds: killed, interrupted, resumed, refused."""

import dataclasses
import hashlib
import json
import multiprocessing
import random
import re
import shutil
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.cleaning.clean import CleanedCatalogue, clean
from pipeline.feedback.lessons import Lessons
from pipeline.feedback.table import feedback_table
from pipeline.training.network import loop
from pipeline.training.network.checkpoints import RunDirectory
from pipeline.training.network.samples import Samples
from pipeline.training.recipes import RECIPES, KeepBest, Recipe
from pipeline.training.split import split_listings
from pipeline.training.train import TrainedNetwork, _taught, train
from pipeline.training.weights.loading import load_weights
from shared.errors import CatalogueUnusable, TrainingFailed
from shared.feedback.contract import FeedbackEvent, Impression, JobFeedback, StoredEvent
from shared.photos.images import PreprocessSpec
from shared.settings import Backbone
from tests.support.once import small_catalogue

HEAD = dataclasses.replace(RECIPES["head"], epochs=3, batch=16, n_views=2)
CACHED = Recipe(
    "cached", n_trained_stages=3, epochs=3, batch=8, n_views=2, weight_decay=0.01, lr_decay=0.8, warmup=0.1,
    cosine=True, label_smoothing=0.1, mixup=0.2, ema_decay=0.9, topics=0.3, logistic_start=True,
)  # fmt: skip
PAIRS = dataclasses.replace(CACHED, name="pairs", mixup=0, pairs=1.0, keep_best=KeepBest.SIBLINGS)
DECODED = Recipe("decoded", n_trained_stages=2, epochs=2, batch=16, cached=False, lr_trunk=1e-3, update_statistics=True)


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory: pytest.TempPathFactory) -> CleanedCatalogue:
    catalogue = small_catalogue(tmp_path_factory, 26)
    return clean(catalogue, tmp_path_factory.mktemp("dump") / "clean", report_progress=lambda _: None)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads that wait for one another at every tiny operation cost seconds where others compute too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(
    cleaned: CleanedCatalogue,
    recipe: Recipe,
    home: Path,
    *,
    resume: bool = False,
    messages: list[str] | None = None,
    feedback: Sequence[JobFeedback] | None = None,
) -> TrainedNetwork:
    return train(
        load_weights(Backbone.EFFICIENTNET_LITE0, None, download_timeout_s=1),
        cleaned,
        recipe,
        directory=home / "run",
        activations=cleaned.directory.parent / "activations",  # shared: exporting a front takes seconds
        spec=PreprocessSpec(size_px=64),
        resume=resume,
        seed=17,
        report_progress=(messages if messages is not None else []).append,
        feedback=None if feedback is None else feedback_table(feedback),
    )


def outcome(trained: TrainedNetwork) -> str:
    """Everything a run results in but how long it took, to the last bit of every weight."""
    tensors = trained.weights.network.tensors()
    weights = hashlib.sha256(b"".join(value.tobytes() for value in tensors.values())).hexdigest()
    history = [{name: value for name, value in entry.items() if name != "seconds"} for entry in trained.history]
    return json.dumps([weights, history, trained.notes])


def run_and_tell(cleaned: CleanedCatalogue, recipe: Recipe, home: Path, saved: Connection) -> None:
    """In a process of its own: a checkpoint after every batch, and a word about each."""
    torch.set_num_threads(1)
    save = RunDirectory.save

    def save_and_say(*args: Any) -> None:
        save(*args)
        saved.send("saved")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_EVERY_S", 0)
        patch.setattr(RunDirectory, "save", save_and_say)
        result = outcome(run(cleaned, recipe, home, resume=True))
    saved.send(result)


@pytest.mark.parametrize("recipe", [CACHED, PAIRS, DECODED], ids=lambda recipe: recipe.name)
def test_a_run_killed_five_times_at_random_moments_ends_as_an_undisturbed_one(
    recipe: Recipe, cleaned: CleanedCatalogue, tmp_path: Path
) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([run.__module__])
    rng = random.Random()

    def start() -> tuple["multiprocessing.process.BaseProcess", Connection]:
        ours, theirs = processes.Pipe()
        process = processes.Process(target=run_and_tell, args=(cleaned, recipe, tmp_path, theirs))
        process.start()
        theirs.close()
        return process, ours

    undisturbed = outcome(run(cleaned, recipe, tmp_path))
    shutil.rmtree(tmp_path / "run")
    for _ in range(5):
        process, saved = start()
        for _ in range(rng.randint(0, 2)):
            saved.recv()
        process.join(rng.uniform(0, 0.1))
        process.kill()
        process.join()
    process, saved = start()
    received = "saved"
    while received == "saved":
        received = saved.recv()
    process.join()
    assert received == undisturbed


def test_two_runs_are_the_same_to_the_last_bit_and_the_second_computes_no_activations(
    cleaned: CleanedCatalogue, tmp_path: Path
) -> None:
    messages: list[str] = []
    first = run(cleaned, HEAD, tmp_path)
    assert outcome(run(cleaned, HEAD, tmp_path, messages=messages)) == outcome(first)
    assert outcome(run(cleaned, HEAD, tmp_path, resume=True)) == outcome(first)  # it has ended: nothing is left to do
    assert any(line.startswith("activations: 0 views to compute") for line in messages)


def test_only_the_trained_stages_and_the_head_change(cleaned: CleanedCatalogue, tmp_path: Path) -> None:
    before = load_weights(Backbone.EFFICIENTNET_LITE0, None, download_timeout_s=1).network.features.trunk
    trained = run(cleaned, dataclasses.replace(CACHED, epochs=1, logistic_start=False), tmp_path)
    after = trained.weights.network.features.trunk
    changed = [
        any((old != new).any() for old, new in zip(one.parameters(), other.parameters(), strict=True))
        for one, other in zip(before.stages(), after.stages(), strict=True)
    ]
    assert changed == [False] * (len(changed) - 3) + [True] * 3


def test_a_loss_that_is_no_number_is_told_with_its_place_and_what_was_saved_stays(
    cleaned: CleanedCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot = dataclasses.replace(DECODED, lr_trunk=1e30, lr_head=1e30)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0)
    with pytest.raises(TrainingFailed, match=r"epoch 1, batch \d.*1e\+30") as failed:
        run(cleaned, hot, tmp_path)
    with pytest.raises(TrainingFailed, match=re.escape(str(failed.value))):
        run(cleaned, hot, tmp_path, resume=True)


def test_resuming_with_another_recipe_or_catalogue_is_refused(cleaned: CleanedCatalogue, tmp_path: Path) -> None:
    run(cleaned, HEAD, tmp_path)
    with pytest.raises(TrainingFailed, match="another recipe;"):
        run(cleaned, dataclasses.replace(HEAD, lr_head=0.5), tmp_path, resume=True)
    with pytest.raises(TrainingFailed, match="catalogue"):
        run(part_of(cleaned, 40), HEAD, tmp_path, resume=True)


def test_of_feedback_what_photos_do_not_show_is_refused_and_the_rest_is_trained_on(
    cleaned: CleanedCatalogue, tmp_path: Path
) -> None:
    once = dataclasses.replace(HEAD, epochs=1)
    photos, categories = cleaned.catalogue.photos, cleaned.catalogue.categories
    split = split_listings(photos, cleaned.near_duplicates)
    one, other, *some = sorted(split.train)
    table = {photo.listing_id: photo.category for photo in photos}
    spoilt = [corrected(n, each, categories[(table[each] + 1) % 13], key=f"k{n}") for n, each in enumerate(some[:6], 1)]
    messages: list[str] = []
    refused = run(cleaned, once, tmp_path, messages=messages, feedback=spoilt)
    assert refused.notes["feedback: labels used"] == 0, messages
    assert (tmp_path / "run" / "corrections.csv").read_text().count(",refused") == 6
    with pytest.raises(TrainingFailed, match="had another feedback"):
        run(cleaned, once, tmp_path, resume=True)
    without = run(cleaned, once, tmp_path)
    assert outcome(dataclasses.replace(refused, notes=without.notes)) == outcome(without)

    lessons = Lessons(labels={one: 5, other: 5}, pairs=((one, other),))
    before = Samples.of(photos, cleaned.topics, split)
    after = _taught(before, lessons, cleaned, split)
    rows = [row for row, photo in enumerate(photos) if photo.listing_id in (one, other)]
    assert set(after.labels[rows]) == {5}
    assert len(set(after.listings[rows])) == len(set(after.topics[rows])) == 1
    rest = np.setdiff1d(np.arange(len(photos)), rows)
    assert (after.labels[rest] == before.labels[rest]).all()
    assert len(np.unique(after.listings)) == len(np.unique(before.listings)) - 1


def corrected(number: int, listing: str, category: str, *, key: str) -> JobFeedback:
    impression = Impression(
        job_id=f"{number:032x}", owner=key, searched_at=number, index_version="v", model_fingerprint="f",
        listing_id=listing,
    )  # fmt: skip
    event = StoredEvent(event=FeedbackEvent.CATEGORY, category=category, at=number)
    return JobFeedback(impression=impression, events=(event,))


def test_an_interrupted_run_gives_the_best_weights_so_far_and_goes_on_later(
    cleaned: CleanedCatalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outcome(run(cleaned, CACHED, tmp_path))
    save = RunDirectory.save

    def interrupt(directory: RunDirectory, state: dict[str, Any], history: list[dict[str, float]]) -> None:
        save(directory, state, history)
        if len(history) == 2:
            raise KeyboardInterrupt

    messages: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "save", interrupt)
        cut = run(cleaned, CACHED, tmp_path, messages=messages)
    assert cut.notes["ended"] == "interrupted in epoch 3"
    assert any("--resume" in line for line in messages)
    assert len(cut.history) == 2
    assert all(np.isfinite(value).all() for value in cut.weights.network.tensors().values())
    assert outcome(run(cleaned, CACHED, tmp_path, resume=True)) == whole


def test_a_damaged_checkpoint_is_named(cleaned: CleanedCatalogue, tmp_path: Path) -> None:
    run(cleaned, HEAD, tmp_path)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"not one")
    with pytest.raises(TrainingFailed, match=r"checkpoint\.pt"):
        run(cleaned, HEAD, tmp_path, resume=True)


def part_of(cleaned: CleanedCatalogue, n_photos: int) -> CleanedCatalogue:
    photos = cleaned.catalogue.photos[:n_photos]
    catalogue = dataclasses.replace(cleaned.catalogue, photos=photos, digest=str(n_photos))
    return dataclasses.replace(cleaned, catalogue=catalogue)


@pytest.mark.parametrize("recipe", [HEAD, CACHED], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("n_photos", [1, 3])
def test_a_handful_of_photos_is_trained_on_and_nothing_is_claimed(
    recipe: Recipe, n_photos: int, cleaned: CleanedCatalogue, tmp_path: Path
) -> None:
    messages: list[str] = []
    trained = run(part_of(cleaned, n_photos), recipe, tmp_path, messages=messages)
    assert not trained.split.validation | trained.split.test
    assert not any(name.startswith("val_") for entry in trained.history for name in entry)
    assert any("cannot be said" in line for line in messages)
    present = {photo.category for photo in cleaned.catalogue.photos[:n_photos]}
    _, scores = trained.weights.network(torch.zeros((2, 64, 64, 3), dtype=torch.uint8))
    assert set(scores.argmax(1).tolist()) <= present


def test_a_category_without_photos_is_named_and_never_answered(cleaned: CleanedCatalogue, tmp_path: Path) -> None:
    photos = [photo for photo in cleaned.catalogue.photos if photo.category != 4]
    catalogue = dataclasses.replace(cleaned.catalogue, photos=photos, digest="without")
    messages: list[str] = []
    trained = run(dataclasses.replace(cleaned, catalogue=catalogue), CACHED, tmp_path, messages=messages)
    assert any("Phones, Mobile Phones & Telecoms" in line for line in messages)
    _, scores = trained.weights.network(torch.randint(0, 255, (20, 64, 64, 3), dtype=torch.uint8))
    assert 4 not in scores.argmax(1)


def test_without_a_photo_there_is_nothing_to_train_on(cleaned: CleanedCatalogue, tmp_path: Path) -> None:
    with pytest.raises(CatalogueUnusable):
        run(part_of(cleaned, 0), HEAD, tmp_path)


def test_it_ends_when_nothing_gets_better(cleaned: CleanedCatalogue, tmp_path: Path) -> None:
    still = dataclasses.replace(HEAD, lr_head=0, epochs=9, patience=2)
    trained = run(cleaned, still, tmp_path)
    assert len(trained.history) == 2
    assert trained.notes["ended"] == "no better epoch since 0"
    assert outcome(run(cleaned, still, tmp_path, resume=True)) == outcome(trained)


def test_tensorboard_has_every_figure_of_every_epoch(cleaned: CleanedCatalogue, tmp_path: Path) -> None:
    trained = run(cleaned, HEAD, tmp_path)
    run(cleaned, HEAD, tmp_path, resume=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name in trained.history[0]:
        seen = [(event.step, event.value) for event in events.Scalars(name)]
        assert seen == [(n, pytest.approx(entry[name])) for n, entry in enumerate(trained.history, 1)]
