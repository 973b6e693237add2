"""Settings refuse what cannot work and name the variable; the error tree in the docstring is the one in the code."""

import inspect
import re
import traceback
from base64 import b64encode
from http import HTTPStatus
from pathlib import Path

import pytest

from pipeline.local.up import _environment
from shared import errors
from shared.errors import CannotStart, LookalikeError
from shared.milvus_url import MilvusAddress, parse_milvus_url
from shared.settings import RENAMED, Backbone, Settings, load_settings
from shared.webhooks.signing import WebhookPolicy
from worker.jobs.periodic import EVERY_S


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No LOOKALIKE_ variable of whoever runs the tests, and a working directory of its own."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LOOKALIKE_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


# Reading the environment


def test_an_empty_environment_gives_the_defaults(tmp_path: Path) -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.backbone) == ("127.0.0.1", 8080, Backbone.AUTO)
    assert (settings.home, settings.catalogue, settings.weights) == (tmp_path / "var", None, None)


def test_connections_are_kept_longer_than_load_balancers_keep_them() -> None:
    assert load_settings().keep_alive_s > 60  # the idle time of most


def test_each_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {
        "HOST": "localhost", "PORT": "18080", "BACKBONE": "resnet50", "REDIS_URL": "redis://127.0.0.1:1/0",
        "LEGACY_WAIT_S": "2.5", "MAX_WAITERS": "0", "WEIGHTS": "w.pth",
    }  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(f"LOOKALIKE_{name}", value)
    settings = load_settings()
    assert (settings.host, settings.port, settings.backbone) == ("localhost", 18080, Backbone.RESNET50)
    assert (settings.legacy_wait_s, settings.max_waiters) == (2.5, 0)
    assert settings.required_redis_url == "redis://127.0.0.1:1/0"
    assert settings.weights == tmp_path / "w.pth"


def test_variables_with_another_prefix_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("HOST", "0.0.0.0")
    assert (load_settings().port, load_settings().host) == (8080, "127.0.0.1")


@pytest.mark.parametrize("name", ["HOST", "PORT", "HOME", "CATALOGUE", "REDIS_URL", "BACKBONE", "LEASE_S", "WEIGHTS"])
def test_an_empty_variable_is_as_if_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    default = load_settings()
    monkeypatch.setenv(f"LOOKALIKE_{name}", "")
    assert load_settings() == default


def test_what_is_given_wins_over_the_environment_and_none_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_PORT", "18080")
    monkeypatch.setenv("LOOKALIKE_BACKBONE", "resnet50")
    settings = load_settings(port=9090, backbone=None)
    assert (settings.port, settings.backbone) == (9090, Backbone.RESNET50)


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["home", "catalogue", "store", "weights"])
@pytest.mark.parametrize(
    ("given", "below"),
    [("some/place", "work/some/place"), ("./a/../b", "work/b"), ("~/place", "user/place")],
)
def test_paths_are_made_absolute_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, given: str, below: str
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv(f"LOOKALIKE_{name.upper()}", given)
    path = Path(getattr(load_settings(), name))
    monkeypatch.chdir("/")
    assert path == tmp_path / below


def test_an_absolute_home_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOOKALIKE_HOME", str(tmp_path / "with space"))
    assert load_settings().home == tmp_path / "with space"


# Refusals


OUT_OF_RANGE = {
    "PORT": ["0", "65536", "eighty", "80.5"],
    "BACKBONE": ["resnet18", "RESNET50"],
    "KEEP_ALIVE_S": ["0", "3601", "1.5"],
    "MAX_UPLOAD_MB": ["0", "-1"],
    "MAX_PIXELS": ["0"],
    "DECODE_THREADS": ["-1"],
    "LEGACY_WAIT_S": ["-1", "31", "nan"],
    "MAX_WAITERS": ["-1", "901"],
    "MAX_QUEUED": ["0"],
    "JOB_TTL_S": ["59"],
    "RESULT_TTL_S": ["0"],
    "LEASE_S": ["0", "-5", "3.9", "nan", "inf"],
    "DOWNLOAD_TIMEOUT_S": ["0", "soon", "inf"],
    "MAX_ATTEMPTS": ["0"],
    "WORKER_THREADS": ["-1", "1001"],
    "WORKER_TAKES": ["everything"],
    "THREADS": ["-1"],
    "PUBLISHED_ELSEWHERE": ["perhaps"],
    "HOME": ["~nobody-of-that-name/var"],
    "WEBHOOK_HOSTS": ["https://hooks.example.org", "*.example.org", "hooks.example.org:0"],
    "WEBHOOK_SECRET": ["secret", "whsec_c2hvcnQ=", "whsec_***"],
    "WEBHOOK_ALLOW_PRIVATE": ["perhaps"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values]
)
def test_a_value_out_of_range_is_refused_under_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"LOOKALIKE_{name}", value)
    with pytest.raises(CannotStart, match=f"LOOKALIKE_{name}: "):
        load_settings()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"LEASE_S": "1.5"}, r"LOOKALIKE_LEASE_S: must be at least 4: workers extend .* every 2 s.*; unset it"),
        ({"LEASE_S": "60", "JOB_TTL_S": "60"}, r"LOOKALIKE_LEASE_S=60 must be below LOOKALIKE_JOB_TTL_S=60.*; lower"),
    ],
)
def test_what_contradicts_the_service_or_another_setting_is_refused_with_the_bound_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], message: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"LOOKALIKE_{name}", value)
    with pytest.raises(CannotStart, match=message):
        load_settings()


def test_bounds_themselves_are_allowed() -> None:
    assert load_settings(lease_s=4, max_waiters=900).lease_s == 2 * EVERY_S


def test_all_values_out_of_range_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_PORT", "0")
    monkeypatch.setenv("LOOKALIKE_MAX_ATTEMPTS", "0")
    with pytest.raises(CannotStart, match=r"LOOKALIKE_PORT: .*; LOOKALIKE_MAX_ATTEMPTS: "):
        load_settings()


def test_a_value_given_in_code_is_refused_under_the_same_name() -> None:
    with pytest.raises(CannotStart, match="LOOKALIKE_PORT: "):
        load_settings(port=70_000)


def test_without_a_redis_url_the_variable_is_named() -> None:
    with pytest.raises(CannotStart, match="LOOKALIKE_REDIS_URL"):
        _ = load_settings().required_redis_url


# Secrets in files


@pytest.fixture
def secrets_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("LOOKALIKE_SECRETS_DIR", str(tmp_path))
    (tmp_path / "lookalike_redis_url").write_text("redis://:s3cret@redis:6379/0\n")
    (tmp_path / "redis.conf").write_text("no setting of ours")
    return tmp_path


def test_a_secret_is_read_from_a_file_and_the_environment_goes_before(
    monkeypatch: pytest.MonkeyPatch, secrets_dir: Path
) -> None:
    assert load_settings().required_redis_url == "redis://:s3cret@redis:6379/0"
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", "")
    assert load_settings().required_redis_url == "redis://:s3cret@redis:6379/0"
    monkeypatch.setenv("LOOKALIKE_REDIS_URL", "redis://elsewhere:6379/0")
    assert load_settings().required_redis_url == "redis://elsewhere:6379/0"


def test_a_secret_in_a_file_is_checked_and_not_shown(secrets_dir: Path) -> None:
    (secrets_dir / "lookalike_redis_url").write_text("http://:s3cret@redis")
    with pytest.raises(CannotStart, match="LOOKALIKE_REDIS_URL: ") as refused:
        load_settings()
    assert "s3cret" not in str(refused.value)


def test_a_directory_of_secrets_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOOKALIKE_SECRETS_DIR", str(tmp_path / "typo"))
    with pytest.raises(CannotStart, match=r"LOOKALIKE_SECRETS_DIR: .*typo"):
        load_settings()


# Where the index lies


@pytest.mark.parametrize(
    ("index", "uri", "database"),
    [
        ("milvus+http://milvus", "http://milvus:19530", ""),
        ("milvus+http://10.0.0.7:19531/", "http://10.0.0.7:19531", ""),
        ("milvus+https://[::1]:443/shop", "https://[::1]:443", "shop"),
    ],
)
def test_a_milvus_server_is_named_by_a_url(index: str, uri: str, database: str) -> None:
    assert parse_milvus_url(load_settings(index=index).index) == MilvusAddress(uri, database)


@pytest.mark.parametrize(
    "index",
    [
        "",
        "milvus",
        "faiss ",
        "http://milvus:19530",
        "milvus+http://",
        "milvus+http://host:nan",
        "milvus+http://root:hunter2@host",
        "milvus+http://host/a/b",
        "milvus+http://host?token=hunter2",
    ],
)
def test_what_is_no_place_for_an_index_is_refused_without_being_quoted(index: str) -> None:
    with pytest.raises(CannotStart, match="LOOKALIKE_INDEX") as refused:
        load_settings(index=index)
    assert "hunter2" not in str(refused.value)


def test_the_token_for_milvus_is_not_shown_and_reaches_the_parts_of_the_service() -> None:
    given = load_settings(index="milvus+http://milvus", index_token="root:hunter2")
    assert "hunter2" not in repr(given)
    assert _environment(given, "redis://localhost")["LOOKALIKE_INDEX_TOKEN"] == "root:hunter2"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_the_service_may_listen_on_loopback(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("LOOKALIKE_HOST", host)
    assert load_settings().host == host
    assert not load_settings().reachable_by_others


OPEN_HOSTS = ["0.0.0.0", "::", "192.168.1.20", "10.0.0.1", "example.org", "localhost.example.org", "0", " 127.0.0.1"]


@pytest.mark.parametrize("host", [*OPEN_HOSTS, ""])
def test_a_host_others_can_reach_is_known_as_one(host: str) -> None:
    assert load_settings(host=host).reachable_by_others
    assert not load_settings(host=host, published_elsewhere=True).reachable_by_others


# Webhooks


SECRETS = ",".join("whsec_" + b64encode(seed * 32).decode() for seed in (b"a", b"b"))


@pytest.fixture
def webhooks(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_HOSTS", "Hooks.example.org, other.example.org:8443")
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_SECRET", SECRETS)
    return load_settings()


def test_webhooks_are_off_by_default_and_an_empty_list_leaves_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().webhook_policy == WebhookPolicy()
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_HOSTS", " , ")
    assert load_settings().webhook_policy == WebhookPolicy()


def test_the_webhook_settings_make_a_policy(webhooks: Settings) -> None:
    hosts = ("hooks.example.org", "other.example.org:8443")
    assert webhooks.webhook_policy == WebhookPolicy(hosts, tuple(SECRETS.split(",")), allow_private=False)


def test_hosts_without_a_secret_are_refused_with_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_HOSTS", "hooks.example.org")
    with pytest.raises(CannotStart, match=r"LOOKALIKE_WEBHOOK_SECRET.*openssl rand"):
        load_settings()


def test_the_secret_reaches_the_parts_of_the_service(webhooks: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOSTS", "SECRET"):
        monkeypatch.delenv(f"LOOKALIKE_WEBHOOK_{name}")
    for name, value in _environment(webhooks, "redis://127.0.0.1:1/0").items():
        monkeypatch.setenv(name, value)
    assert load_settings().webhook_policy == webhooks.webhook_policy


def test_the_secret_is_not_shown(webhooks: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = f"{webhooks} {webhooks!r} {webhooks.model_dump()} {webhooks.webhook_policy!r}"
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_SECRET", SECRETS[:-1])
    monkeypatch.setenv("LOOKALIKE_HOST", "0.0.0.0")
    with pytest.raises(CannotStart) as refused:
        load_settings()
    shown += "".join(traceback.format_exception(refused.value))
    assert SECRETS[6:20] not in shown


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is(name: str) -> None:
    assert Settings.model_fields[name].description


# Errors


def classes() -> dict[str, type[LookalikeError]]:
    found = inspect.getmembers(errors, lambda member: inspect.isclass(member) and issubclass(member, LookalikeError))
    return {name: kind for name, kind in found if kind.__module__.startswith(errors.__name__)}


def is_concrete(kind: type[LookalikeError]) -> bool:
    return not any(other is not kind and issubclass(other, kind) for other in classes().values())


CONCRETE = [kind for kind in classes().values() if is_concrete(kind)]
_BRANCH = re.compile(r"^(?P<indent>[│ ]*)[├└]── (?P<name>\w+)(?: +(?P<status>\d{3})  (?P<code>[a-z_]+))?")


def drawn_tree() -> dict[str, tuple[str, str | None, str | None]]:
    """Parent, HTTP status and code by class name, as the module's docstring draws them."""
    tree: dict[str, tuple[str, str | None, str | None]] = {}
    parents = ["LookalikeError"]
    for line in (errors.__doc__ or "").splitlines():
        if branch := _BRANCH.match(line):
            depth = len(branch["indent"]) // 4
            parents[depth + 1 :] = [branch["name"]]
            tree[branch["name"]] = (parents[depth], branch["status"], branch["code"])
    return tree


def test_the_drawn_tree_holds_every_error_and_no_other() -> None:
    assert drawn_tree().keys() == classes().keys() - {"LookalikeError"}


@pytest.mark.parametrize("kind", [kind for kind in classes().values() if kind is not LookalikeError])
def test_an_error_hangs_where_it_is_drawn(kind: type[LookalikeError]) -> None:
    assert [base.__name__ for base in kind.__bases__] == [drawn_tree()[kind.__name__][0]]


@pytest.mark.parametrize("kind", CONCRETE)
def test_status_and_code_of_an_error_are_those_drawn(kind: type[LookalikeError]) -> None:
    _, status, code = drawn_tree()[kind.__name__]
    assert (str(kind.http_status), kind.code) == (status, code)


def test_every_concrete_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in CONCRETE]
    assert sorted(set(codes)) == sorted(codes)


@pytest.mark.parametrize("kind", classes().values())
def test_a_code_is_declared_or_that_of_the_parent_and_nobody_elses(kind: type[LookalikeError]) -> None:
    sharing = [other for other in classes().values() if other.code == kind.code]
    assert all(issubclass(other, kind) or issubclass(kind, other) for other in sharing)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)


@pytest.mark.parametrize("kind", classes().values())
def test_an_errors_http_status_is_one_of_an_error(kind: type[LookalikeError]) -> None:
    assert HTTPStatus(kind.http_status) >= 400


@pytest.mark.parametrize("kind", classes().values())
def test_only_what_the_caller_can_wait_out_or_nobody_caused_is_retryable(kind: type[LookalikeError]) -> None:
    assert not (kind.retryable and issubclass(kind, errors.InputError))
    if issubclass(kind, errors.Overload):
        assert kind.retryable
        assert kind("full", retry_after_s=3).retry_after_s == 3


@pytest.mark.parametrize(("before", "now"), RENAMED.items())
def test_a_setting_is_read_under_its_older_name_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, before: str, now: str
) -> None:
    monkeypatch.setenv(f"LOOKALIKE_{before.upper()}", "7")
    with pytest.warns(FutureWarning, match=f"LOOKALIKE_{now.upper()}"):
        assert getattr(load_settings(), now) == 7
    monkeypatch.setenv(f"LOOKALIKE_{now.upper()}", "8")
    assert getattr(load_settings(), now) == 8
