"""Decoders as real processes: what a photo does to one is done to that one only, within bounds of memory and time."""

import os
import signal
import socket
import struct
import time
from io import BytesIO

import gevent
import pytest
from gevent.socket import socketpair
from PIL import Image

from api.uploads import bodies
from api.uploads.decoder_pool import DecoderPool, _Decoder
from shared.errors import InputError, PhotoTooLarge, PhotoUndecodable, QueueFull
from shared.jobs.contract import Priority
from shared.photos.colour import SRGB_CURVE, matrix_profile
from shared.photos.images import FORMATS, PreprocessSpec, decode_photo
from shared.settings import Settings
from tests.conftest import encode, noise_image
from tests.e2e.support.photo_bytes import GIF_FRAME, SIDE, exif_blob, gif, png

SPEC = PreprocessSpec()
PHOTO = encode(noise_image(3))
HEAVY = encode(Image.new("RGB", (4000, 2950), "teal"), "PNG")  # about as much as a small photo may take
PROFILE = matrix_profile(((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)), (0.3127, 0.3290), SRGB_CURVE)  # Display P3


@pytest.fixture(scope="module")
def decoders() -> DecoderPool:
    return DecoderPool(2, max_pixels=64_000_000)


def decode(decoders: DecoderPool, photo: bytes) -> bytes:
    return decoders.decode(BytesIO(photo), SPEC)


def process_ids(decoders: DecoderPool) -> list[int]:
    return [decoder._process.pid for pool in (decoders._small, decoders._large) for decoder in pool._idle]


@pytest.mark.parametrize(("cores", "n"), [(1, 2), (4, 2), (12, 3), (64, 4)])
def test_as_many_photos_are_decoded_at_once_as_the_machine_and_one_api_can_use(
    monkeypatch: pytest.MonkeyPatch, cores: int, n: int
) -> None:
    asked_for: list[int] = []
    monkeypatch.setattr(bodies, "n_cores", lambda: cores)
    monkeypatch.setattr(bodies, "DecoderPool", lambda n, **_: asked_for.append(n))
    for setting in (Settings().decode_threads, 7):
        bodies.PhotoReader(n_threads=setting, max_pixels=1)
    assert asked_for == [n, 7]


def test_the_pixels_are_those_of_the_one_decoder(decoders: DecoderPool) -> None:
    assert decode(decoders, PHOTO) == decode_photo(PHOTO, SPEC).tobytes()


def test_a_refusal_is_the_one_decoders_too(decoders: DecoderPool) -> None:
    with pytest.raises(PhotoUndecodable, match="cut short"):
        decode(decoders, PHOTO[: len(PHOTO) // 2])
    with pytest.raises(PhotoTooLarge, match="20000x20000"):
        decode(decoders, png(20_000, 20_000, data=b""))
    assert decode(decoders, PHOTO)


def test_a_photo_that_takes_too_long_ends_its_process_and_nothing_else(decoders: DecoderPool) -> None:
    """Five million extensions of a GIF; each costs Pillow a microsecond or so."""
    started = time.monotonic()
    with pytest.raises((PhotoUndecodable, QueueFull), match=r"too (long|busy)"):
        decode(decoders, gif(1, 1, b"!\xf9\x04\0\0\0\0\0" * 8_000_000 + GIF_FRAME))
    assert time.monotonic() - started < 10
    assert decode(decoders, PHOTO)


def test_a_photo_that_takes_far_more_memory_than_its_size_is_refused(decoders: DecoderPool) -> None:
    """Tags that lie on top of one another: 60,000 times 5 MB."""
    tags = [(tag, 7, 5_000_000, 8) for tag in range(1, 60_000)]
    with pytest.raises(InputError):
        decode(decoders, exif_blob(tags, b"\0" * 5_000_000))
    assert decode(decoders, PHOTO)


def decode_every_kind(decoders: DecoderPool) -> None:
    """Have a process load all libraries. OpenBLAS alone takes 32 MiB, once colours are converted by code."""
    for image_format in FORMATS:
        decode(decoders, encode(noise_image(5), image_format))
    avif = encode(noise_image(6), "AVIF")
    at = avif.index(b"colrnclx") + 8
    decode(decoders, avif[:at] + struct.pack(">HH", 12, 13) + avif[at + 4 :])


def test_memory_that_libraries_keep_is_not_taken_from_the_photos_that_follow() -> None:
    decoders = DecoderPool(1, max_pixels=64_000_000)
    assert decode(decoders, HEAVY)
    processes = process_ids(decoders)
    decode_every_kind(decoders)
    assert decode(decoders, HEAVY)
    assert process_ids(decoders) == processes


def test_a_process_that_has_kept_much_memory_is_replaced() -> None:
    """Colour profiles are kept, here 4 MB each."""
    decoders = DecoderPool(1, max_pixels=64_000_000)
    decode_every_kind(decoders)
    processes = set(process_ids(decoders))
    for number in range(20):
        profile = PROFILE + bytes(4_000_000) + bytes([number])
        profile = struct.pack(">I", len(profile)) + profile[4:]
        assert decode(decoders, encode(noise_image(7), icc_profile=profile))
        processes |= set(process_ids(decoders))
    assert len(processes) == 2
    assert decode(decoders, HEAVY)


def test_a_process_killed_as_it_waits_is_replaced_and_the_photo_not_blamed(decoders: DecoderPool) -> None:
    decode(decoders, PHOTO)
    for process_id in process_ids(decoders):
        os.kill(process_id, signal.SIGKILL)
    time.sleep(0.1)
    assert decode(decoders, PHOTO)


def test_a_process_that_ends_while_it_answers_gives_no_part_of_an_answer() -> None:
    decoder = _Decoder()
    ours, theirs = socketpair()
    theirs.sendall(b'{"protections": [], "at_rest_bytes": 0}\n{"n_bytes": 150528}\n' + bytes(1000))
    theirs.shutdown(socket.SHUT_WR)
    decoder._stream = ours.makefile("rwb")
    with ours, theirs, pytest.raises(PhotoUndecodable, match="too long"):
        decoder.ask(PHOTO, {}, {"max_pixels": 1, "max_decoding_bytes": 1})


def test_a_caller_that_gives_up_leaves_no_answer_for_the_next(decoders: DecoderPool) -> None:
    large = png(SIDE // 2, SIDE // 2, colour=6)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
        decode(decoders, large)
    other = encode(noise_image(4))
    assert decode(decoders, other) == decode_photo(other, SPEC).tobytes()
    assert decode(decoders, large) == decode_photo(large, SPEC).tobytes()


def test_large_photos_take_turns_and_hold_up_no_small_one(decoders: DecoderPool) -> None:
    decode(decoders, PHOTO)  # a process for small ones has started: that takes longer than a photo does
    large = png(SIDE, SIDE, colour=6)
    greenlets = [gevent.spawn(decode, decoders, large) for _ in range(2)]
    gevent.sleep(0.05)
    assert decode(decoders, PHOTO)
    assert not any(greenlet.ready() for greenlet in greenlets)
    gevent.joinall(greenlets)
    assert all(isinstance(greenlet.exception, QueueFull | None) for greenlet in greenlets)
    assert len(decoders._large._idle) == 1


@pytest.mark.parametrize("n", [1, 2])
def test_no_interactive_photo_waits_behind_bulk_ones_that_wait(n: int) -> None:
    decoders = DecoderPool(n, max_pixels=64_000_000)
    gevent.joinall([gevent.spawn(decode, decoders, PHOTO) for _ in range(n)])  # all processes have started
    ended: list[Priority] = []

    def take(priority: Priority) -> None:
        decoders.decode(BytesIO(PHOTO), SPEC, priority=priority)
        ended.append(priority)

    greenlets = [gevent.spawn(take, Priority.BULK) for _ in range(20)]
    gevent.sleep(0)
    greenlets.append(gevent.spawn(take, Priority.INTERACTIVE))
    gevent.joinall(greenlets, raise_error=True)
    assert ended.index(Priority.INTERACTIVE) <= 2
    assert len(ended) == 21


def test_processes_end_with_their_owner() -> None:
    mine = DecoderPool(1, max_pixels=64_000_000)
    decode(mine, PHOTO)
    (process_id,) = process_ids(mine)
    del mine
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, 0)
