"""The two clients: the same calls, made one after the other, or awaited. Everything a call means is in `calls`."""

import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from time import sleep
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import anyio
import anyio.to_thread
import httpx

from lookalike.calls import Calls
from lookalike.errors import NoAnswer
from lookalike.exchange import Call, Effect, Pause, Request, Send
from lookalike.jobs import AsyncJob, Job
from lookalike.models import SearchResult
from lookalike.tracking import Ticket

DEFAULT_URL = "http://127.0.0.1:8080"

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


def _now(
    call: Callable[Concatenate[Calls, P], Call[T]],
) -> "Callable[Concatenate[Client, P], T]":
    """A call as a method that returns its outcome."""

    @wraps(call)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(call(self.calls, *args, **kwargs))

    return method


def _now_a_job(
    call: Callable[Concatenate[Calls, P], Call[Ticket[R]]],
) -> "Callable[Concatenate[Client, P], Job[R]]":
    @wraps(call)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> "Job[R]":
        return Job(self, self.run(call(self.calls, *args, **kwargs)))

    return method


def _later(
    call: Callable[Concatenate[Calls, P], Call[T]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]":
    """A call as a method whose outcome is awaited."""

    @wraps(call)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(call(self.calls, *args, **kwargs))

    return method


def _later_a_job(
    call: Callable[Concatenate[Calls, P], Call[Ticket[R]]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, AsyncJob[R]]]":
    @wraps(call)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> "AsyncJob[R]":
        return AsyncJob(self, await self.run(call(self.calls, *args, **kwargs)))

    return method


class Client:
    """A client of a Lookalike service. It may be used by several threads at once, and as a context manager.

    Args:
        url: of the service. Default: LOOKALIKE_URL, or http://127.0.0.1:8080.
        api_key: where the service has keys. Default: LOOKALIKE_API_KEY.
        timeout_s: how long a call may take, with all that is sent again because the service was busy or out of reach.
        transport: what to send by, if not by httpx's own; for proxies, certificates and tests.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.calls = Calls(timeout_s)
        self.calls.plotter = self._plot
        self._http = httpx.Client(transport=transport, **_connection(url, api_key))

    search = _now(Calls.search)
    embed = _now(Calls.embed)
    submit = _now_a_job(Calls.submit)
    submit_embed = _now_a_job(Calls.submit_embed)
    batch = _now(Calls.batch)
    batch_embed = _now(Calls.batch_embed)
    job = _now_a_job(Calls.job)
    jobs = _now(Calls.jobs)
    put_image = _now(Calls.put_image)
    delete_image = _now(Calls.delete_image)
    thumbnail = _now(Calls.thumbnail)
    reindex = _now(Calls.reindex)
    submit_reindex = _now_a_job(Calls.submit_reindex)
    index = _now(Calls.index)
    versions = _now(Calls.versions)
    report = _now(Calls.report)
    promote = _now(Calls.promote)
    rollback = _now(Calls.rollback)
    ready = _now(Calls.ready)
    workers = _now(Calls.workers)
    plot = _now(Calls.plot)

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._http.base_url).rstrip("/")

    def run(self, call: Call[T]) -> T:
        """Make a call: do what it asks for until it returns."""
        try:
            effect = next(call)
            while True:
                try:
                    outcome = self._do(effect)
                except Exception as exc:
                    effect = call.throw(exc)
                else:
                    effect = call.send(outcome)
        except StopIteration as end:
            outcome_of_all: T = end.value
            return outcome_of_all
        finally:
            call.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, effect: Effect) -> object:
        if isinstance(effect, Send):
            return self._http.request(timeout=effect.timeout, **_arguments(effect.request))
        if isinstance(effect, Pause):
            sleep(effect.seconds)
            return None
        return effect.do()

    def _plot(self, result: SearchResult) -> Any:
        return self.plot(result)


class AsyncClient:
    """The same for asyncio and trio: every call is awaited; any number of them may be under way at once.

    Args: as of Client.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.calls = Calls(timeout_s)
        self.calls.plotter = self._plot
        self._http = httpx.AsyncClient(transport=transport, **_connection(url, api_key))

    search = _later(Calls.search)
    embed = _later(Calls.embed)
    submit = _later_a_job(Calls.submit)
    submit_embed = _later_a_job(Calls.submit_embed)
    batch = _later(Calls.batch)
    batch_embed = _later(Calls.batch_embed)
    job = _later_a_job(Calls.job)
    jobs = _later(Calls.jobs)
    put_image = _later(Calls.put_image)
    delete_image = _later(Calls.delete_image)
    thumbnail = _later(Calls.thumbnail)
    reindex = _later(Calls.reindex)
    submit_reindex = _later_a_job(Calls.submit_reindex)
    index = _later(Calls.index)
    versions = _later(Calls.versions)
    report = _later(Calls.report)
    promote = _later(Calls.promote)
    rollback = _later(Calls.rollback)
    ready = _later(Calls.ready)
    workers = _later(Calls.workers)
    plot = _later(Calls.plot)

    @property
    def url(self) -> str:
        """Where the service is."""
        return str(self._http.base_url).rstrip("/")

    async def run(self, call: Call[T]) -> T:
        """Make a call: do what it asks for until it returns."""
        try:
            effect = next(call)
            while True:
                try:
                    outcome = await self._do(effect)
                except Exception as exc:
                    effect = call.throw(exc)
                else:
                    effect = call.send(outcome)
        except StopIteration as end:
            outcome_of_all: T = end.value
            return outcome_of_all
        finally:
            call.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _do(self, effect: Effect) -> object:
        if isinstance(effect, Send):
            return await self._http.request(timeout=effect.timeout, **_arguments(effect.request))
        if isinstance(effect, Pause):
            await anyio.sleep(effect.seconds)
            return None
        return await anyio.to_thread.run_sync(effect.do)

    def _plot(self, result: SearchResult) -> Any:
        raise ValueError("this result was returned by an AsyncClient: await client.plot(result)")


def _connection(url: str | None, api_key: str | None) -> dict[str, Any]:
    """How both of httpx's clients are made."""
    address = httpx.URL(url or os.environ.get("LOOKALIKE_URL") or DEFAULT_URL)
    if address.scheme not in ("http", "https") or not address.host:
        raise NoAnswer(f"{str(address)!r} is no address of a service: it looks like {DEFAULT_URL}")
    key = (api_key or os.environ.get("LOOKALIKE_API_KEY") or "").strip()  # files of secrets end with a line's end
    headers = {"User-Agent": _user_agent(), "Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return {"base_url": address, "headers": headers, "trust_env": not _is_loopback(address.host)}


def _is_loopback(host: str) -> bool:
    """No proxy leads there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _user_agent() -> str:
    try:
        ours = version("lookalike")
    except PackageNotFoundError:  # run from a checkout
        ours = "0"
    return f"lookalike/{ours} python/{sys.version_info.major}.{sys.version_info.minor}"


def _arguments(request: Request) -> Mapping[str, Any]:
    """A request as httpx takes it."""
    return {
        "method": request.method,
        "url": request.path,
        "params": request.query or None,
        "headers": request.headers,
        "data": request.form,
        "files": request.files or None,
        "json": request.json,
    }
