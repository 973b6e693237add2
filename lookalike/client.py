"""The two clients, blocking and asynchronous: they do the I/O for the calls of `lookalike.calls`."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from time import sleep
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import anyio
import anyio.to_thread
import httpx

from lookalike.calls import Calls
from lookalike.connection import DEFAULT_URL, connection
from lookalike.errors import InputError, NoAnswer
from lookalike.exchange import Call, Effect, Pause, Request, Send
from lookalike.jobs import AsyncJob, Job
from lookalike.models import SearchResult
from lookalike.tracking import Ticket

__all__ = ["DEFAULT_URL", "AsyncClient", "Client"]

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


def _blocking(
    call: Callable[Concatenate[Calls, P], Call[T]],
) -> "Callable[Concatenate[Client, P], T]":
    """Make a blocking method of a call."""

    @wraps(call)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(call(self.calls, *args, **kwargs))

    return method


def _blocking_job(
    call: Callable[Concatenate[Calls, P], Call[Ticket[R]]],
) -> "Callable[Concatenate[Client, P], Job[R]]":
    """Make a blocking method of a call that gets a job; the method returns a `Job`."""

    @wraps(call)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> "Job[R]":
        return Job(self, self.run(call(self.calls, *args, **kwargs)))

    return method


def _awaited(
    call: Callable[Concatenate[Calls, P], Call[T]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]":
    """Make an asynchronous method of a call."""

    @wraps(call)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(call(self.calls, *args, **kwargs))

    return method


def _awaited_job(
    call: Callable[Concatenate[Calls, P], Call[Ticket[R]]],
) -> "Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, AsyncJob[R]]]":
    """Make an asynchronous method of a call that gets a job; the method returns an `AsyncJob`."""

    @wraps(call)
    async def method(self: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> "AsyncJob[R]":
        return AsyncJob(self, await self.run(call(self.calls, *args, **kwargs)))

    return method


class Client:
    """A blocking client of a Lookalike service: search by photo, submit jobs, manage the index.

    Several threads may use one client at once. Its methods are the calls of `lookalike.calls`,
    `lookalike.index_calls` and `lookalike.duplicate_calls`; all of them raise subclasses of `LookalikeError`.

    Requests that a busy service refuses (429, 503) or whose connection breaks are repeated, no sooner than
    `Retry-After` says, until `timeout_s` is over. Idempotency keys keep a repeated submit from making a second job.

    Args:
        url: address of the service, perhaps with a path. Default: LOOKALIKE_URL, else http://127.0.0.1:8080.
        api_key: needed where the service has API keys. Default: LOOKALIKE_API_KEY.
        timeout_s: seconds that a call may take, with all repeated requests. Calls with a `timeout_s` of their own
            use that one.
        transport: httpx transport to send with, for proxies, certificates and tests.

    Raises:
        NoAnswer: `url` is not an http or https address, or the environment names a proxy or certificates that
            cannot be used.
        InputError: another argument is wrong.

    Example:
        >>> from lookalike import Client
        >>> with Client("http://127.0.0.1:8080") as client:
        ...     result = client.search("photo.jpg", k=4)
        ...     print(result.category.name)
        ...     for neighbour in result.neighbours:
        ...         print(neighbour.rank, neighbour.score, neighbour.listing_id)
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        found = connection(url, api_key, with_proxy=transport is None)
        self.calls = Calls(timeout_s, proxy=str(found.proxy or ""))
        self.calls.plotter = self._plot
        self._http = httpx.Client(**found.options(transport))

    search = _blocking(Calls.search)
    embed = _blocking(Calls.embed)
    submit = _blocking_job(Calls.submit)
    submit_embed = _blocking_job(Calls.submit_embed)
    batch = _blocking(Calls.batch)
    batch_embed = _blocking(Calls.batch_embed)
    job = _blocking_job(Calls.job)
    jobs = _blocking(Calls.jobs)
    put_image = _blocking(Calls.put_image)
    delete_image = _blocking(Calls.delete_image)
    thumbnail = _blocking(Calls.thumbnail)
    reindex = _blocking(Calls.reindex)
    submit_reindex = _blocking_job(Calls.submit_reindex)
    duplicates = _blocking(Calls.duplicates)
    submit_duplicates = _blocking_job(Calls.submit_duplicates)
    duplicate_groups = _blocking(Calls.duplicate_groups)
    give_verdict = _blocking(Calls.give_verdict)
    index = _blocking(Calls.index)
    quality = _blocking(Calls.quality)
    versions = _blocking(Calls.versions)
    report = _blocking(Calls.report)
    promote = _blocking(Calls.promote)
    rollback = _blocking(Calls.rollback)
    ready = _blocking(Calls.ready)
    workers = _blocking(Calls.workers)
    plot = _blocking(Calls.plot)

    @property
    def url(self) -> str:
        """Address of the service, without a slash at the end."""
        return str(self._http.base_url).rstrip("/")

    def run(self, call: Call[T]) -> T:
        """Run a call of `calls`: do the I/O it yields until it returns. The methods of this class do so themselves.

        Returns:
            What the call returns.

        Raises:
            LookalikeError: what the call raises.
        """
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
        """Close the connections; the client cannot be used afterwards. `with` does it by itself."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, effect: Effect) -> object:
        if isinstance(effect, Send):
            _require_open(self._http)
            with _faults_named():
                return self._http.send(_built(self._http, effect))
        if isinstance(effect, Pause):
            sleep(effect.seconds)
            return None
        return effect.do()

    def _plot(self, result: SearchResult) -> Any:
        return self.plot(result)


class AsyncClient:
    """An asynchronous client of a Lookalike service, for asyncio and trio.

    It has the calls of `Client`, each to be awaited; any number of them may run at once.

    Args:
        url: address of the service, perhaps with a path. Default: LOOKALIKE_URL, else http://127.0.0.1:8080.
        api_key: needed where the service has API keys. Default: LOOKALIKE_API_KEY.
        timeout_s: seconds that a call may take, with all repeated requests. Calls with a `timeout_s` of their own
            use that one.
        transport: httpx transport to send with, for proxies, certificates and tests.

    Raises:
        NoAnswer: `url` is not an http or https address, or the environment names a proxy or certificates that
            cannot be used.
        InputError: another argument is wrong.

    Example:
        >>> import asyncio
        >>> from lookalike import AsyncClient
        >>> async def main():
        ...     async with AsyncClient("http://127.0.0.1:8080") as client:
        ...         return await asyncio.gather(*(client.search(photo) for photo in ("a.jpg", "b.jpg")))
        >>> results = asyncio.run(main())
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        found = connection(url, api_key, with_proxy=transport is None)
        self.calls = Calls(timeout_s, proxy=str(found.proxy or ""))
        self.calls.plotter = self._plot
        self._options = found.options(transport)
        self._url = found.url
        # Connections belong to the event loop they were made in: each loop gets a client of its own.
        self._by_loop: dict[object, httpx.AsyncClient] = {}
        self._is_closed = False

    search = _awaited(Calls.search)
    embed = _awaited(Calls.embed)
    submit = _awaited_job(Calls.submit)
    submit_embed = _awaited_job(Calls.submit_embed)
    batch = _awaited(Calls.batch)
    batch_embed = _awaited(Calls.batch_embed)
    job = _awaited_job(Calls.job)
    jobs = _awaited(Calls.jobs)
    put_image = _awaited(Calls.put_image)
    delete_image = _awaited(Calls.delete_image)
    thumbnail = _awaited(Calls.thumbnail)
    reindex = _awaited(Calls.reindex)
    submit_reindex = _awaited_job(Calls.submit_reindex)
    duplicates = _awaited(Calls.duplicates)
    submit_duplicates = _awaited_job(Calls.submit_duplicates)
    duplicate_groups = _awaited(Calls.duplicate_groups)
    give_verdict = _awaited(Calls.give_verdict)
    index = _awaited(Calls.index)
    quality = _awaited(Calls.quality)
    versions = _awaited(Calls.versions)
    report = _awaited(Calls.report)
    promote = _awaited(Calls.promote)
    rollback = _awaited(Calls.rollback)
    ready = _awaited(Calls.ready)
    workers = _awaited(Calls.workers)
    plot = _awaited(Calls.plot)

    @property
    def url(self) -> str:
        """Address of the service, without a slash at the end."""
        return str(self._url).rstrip("/")

    async def run(self, call: Call[T]) -> T:
        """Run a call of `calls`: do the I/O it yields until it returns. The methods of this class do so themselves.

        Returns:
            What the call returns.

        Raises:
            LookalikeError: what the call raises.
        """
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
        """Close the connections; the client cannot be used afterwards. `async with` does it by itself."""
        if self._is_closed:
            return
        self._is_closed = True
        if http := self._by_loop.pop(_running_loop(), None):
            await http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _do(self, effect: Effect) -> object:
        if isinstance(effect, Send):
            http = self._of_this_loop()
            with _faults_named():
                return await http.send(_built(http, effect))
        if isinstance(effect, Pause):
            await anyio.sleep(effect.seconds)
            return None
        return await anyio.to_thread.run_sync(effect.do)

    def _of_this_loop(self) -> httpx.AsyncClient:
        if self._is_closed:
            raise InputError("this client is closed; make a new one")
        loop = _running_loop()
        if loop not in self._by_loop:
            for ended in [other for other in self._by_loop if getattr(other, "is_closed", bool)()]:
                del self._by_loop[ended]
            self._by_loop[loop] = httpx.AsyncClient(**self._options)
        return self._by_loop[loop]

    def _plot(self, result: SearchResult) -> Any:
        raise ValueError("this result was returned by an AsyncClient: await client.plot(result)")


def _running_loop() -> object:
    """The event loop of asyncio, or the token of trio's, that runs this code."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return sys.modules["trio"].lowlevel.current_trio_token() if "trio" in sys.modules else None


def _require_open(http: httpx.Client) -> None:
    if http.is_closed:
        raise InputError("this client is closed; make a new one")


@contextmanager
def _faults_named() -> Iterator[None]:
    """Raise errors of this package for what httpx finds in a host name only when it connects."""
    try:
        yield
    except UnicodeError as exc:
        raise NoAnswer(f"url: its host name cannot be looked up ({exc})") from exc


def _built(http: httpx.Client | httpx.AsyncClient, effect: Send) -> httpx.Request:
    """Build a request.

    Raises:
        InputError: a value in it cannot be sent.
    """
    try:
        return http.build_request(timeout=effect.timeout, **_arguments(effect.request))
    except (httpx.InvalidURL, TypeError, ValueError) as exc:
        raise InputError(f"the request to {effect.request.path} cannot be sent as it is: {exc}") from exc


def _arguments(request: Request) -> Mapping[str, Any]:
    """A request as keyword arguments of httpx."""
    return {
        "method": request.method,
        "url": request.path,
        "params": request.query or None,
        "headers": request.headers,
        "data": request.form,
        "files": request.files or None,
        "json": request.json,
    }
