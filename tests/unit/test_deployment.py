"""What the service is deployed by is accepted by the tools that read it, and promises no more than the code keeps."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml

from shared.jobs.celery_config import ALL_QUEUES, QUEUES
from shared.settings import Settings, load_settings
from tests import ROOT
from tests.documents.blocks import blocks
from tests.documents.facts import metric_families
from tests.support.deployment import services, tool

KUBERNETES = ROOT / "deploy/k8s"
DOCKERFILES = ["api/Dockerfile", "worker/Dockerfile", "deploy/flower/Dockerfile"]
PROFILES = ["", "cpu", "gpu", "cpu,monitoring", "gpu,monitoring", "tools"]
BUILT_HERE = {"lookalike-api", "lookalike-worker", "lookalike-worker-gpu", "lookalike-pipeline", "lookalike-flower"}


# --- compose ---


@pytest.mark.parametrize("profiles", PROFILES)
def test_compose_accepts_the_file_without_an_engine_and_without_edits(profiles: str) -> None:
    checked = tool("docker-compose", "config", "-q", **({"COMPOSE_PROFILES": profiles} if profiles else {}))
    assert (checked.returncode, checked.stderr) == (0, "")


def test_without_a_profile_the_whole_service_starts_on_processors_alone() -> None:
    always = {"secrets", "redis", "api"}
    assert set(services()) == always | {"prepare", "prepared", "worker-interactive", "worker-bulk"}
    assert set(services("gpu")) == always | {"prepare-gpu", "prepared-gpu", "worker-gpu"}


def test_what_serves_waits_for_redis_and_nothing_else() -> None:
    found = services() | services("gpu")
    for name in ("api", "worker-interactive", "worker-bulk", "worker-gpu"):
        assert set(found[name]["depends_on"]) == {"redis"}, name


def test_a_catalogue_is_mounted_under_a_name_of_its_own_and_never_made() -> None:
    for catalogue in ("/srv/shop", ""):
        for name, made in services("cpu,tools", CATALOGUE=catalogue).items():
            mounts = [mount for mount in made.get("volumes", ()) if mount["target"].startswith("/catalogue")]
            for mount in mounts:
                assert mount["target"] == f"/catalogue{catalogue}"
                assert (mount["type"], mount["read_only"]) == ("bind", True)
                assert not mount["bind"].get("create_host_path"), name
                assert made["environment"]["LOOKALIKE_CATALOGUE"] == (mount["target"] if catalogue else "")
                assert mount["source"] == catalogue or Path(mount["source"]).is_dir()
            assert bool(mounts) is (name in {"prepare", "lookalike", "api", "worker-interactive", "worker-bulk"}), name
    bucket = "s3://bucket/shop"
    assert services(LOOKALIKE_CATALOGUE=bucket)["api"]["environment"]["LOOKALIKE_CATALOGUE"] == bucket


def test_nothing_is_published_beyond_loopback_and_redis_not_at_all() -> None:
    found = services("cpu,monitoring")
    published = {name: [port["host_ip"] for port in made["ports"]] for name, made in found.items() if "ports" in made}
    assert published == {name: ["127.0.0.1"] for name in ("api", "flower", "grafana", "prometheus")}
    assert list(found["redis"]["networks"]) == ["inside"]


@pytest.mark.parametrize("profiles", ["cpu,monitoring,tools", "gpu"])
def test_no_container_is_root_or_writes_to_itself_or_grows_without_bounds(profiles: str) -> None:
    for name, made in services(profiles).items():
        assert made["read_only"], name
        assert made["cap_drop"] == ["ALL"], name
        assert made["security_opt"] == ["no-new-privileges:true"], name
        assert int(made["mem_limit"]) > 0, name
        assert made["pids_limit"] > 0, name
        assert made["logging"]["options"]["max-size"], name
        assert not made["user"].startswith("0") if "user" in made else _runs_unprivileged(made["image"]), name


def _runs_unprivileged(image: str) -> bool:
    return image.partition(":")[0] in {*BUILT_HERE, "prom/prometheus", "grafana/grafana"}


def test_between_them_the_workers_take_every_kind_of_job() -> None:
    takes = {
        made["environment"]["LOOKALIKE_WORKER_TAKES"] for name, made in services().items() if name.startswith("worker")
    }
    assert takes == {priority.value for priority in QUEUES}
    assert "LOOKALIKE_WORKER_TAKES" not in services("gpu")["worker-gpu"]["environment"]


def test_images_have_versions_and_ours_that_of_the_project() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {made["image"] for made in (services("cpu,monitoring,tools") | services("gpu")).values()}
    assert {image for image in images if image.startswith("lookalike")} == {f"{name}:{version}" for name in BUILT_HERE}
    assert all(re.search(r":v?\d+\.\d+\.\d+", image) for image in images)
    assert images >= {container["image"] for _, pod in pods() for container in pod["containers"]}
    tried = {made["image"] for made in services("cpu,monitoring,tools", VERSION="2").values()}
    assert {image for image in tried if image.startswith("lookalike")} == {
        f"{name}:2" for name in BUILT_HERE - {"lookalike-worker-gpu"}
    }


def test_every_setting_that_a_deployment_names_exists() -> None:
    settings = {f"LOOKALIKE_{name.upper()}" for name in Settings.model_fields}
    files = [ROOT / "docker-compose.yml", *(ROOT / name for name in DOCKERFILES), *KUBERNETES.iterdir()]
    assert set(re.findall(r"LOOKALIKE_[A-Z_]+", "".join(file.read_text() for file in files))) <= settings


def test_what_lookalike_env_cannot_set_is_told() -> None:
    file = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].values()
    ours = [
        made["environment"] for made in file if {"path": "lookalike.env", "required": False} in made.get("env_file", ())
    ]
    assert ours
    told = (ROOT / "docs/deployment.md").read_text()
    assert {name for environment in ours for name in environment if f"`{name}`" not in told} == set()


# --- secrets ---


def make_secrets(directory: Path) -> dict[str, str]:
    done = subprocess.run(
        ["sh", ROOT / "deploy/make-secrets.sh", directory], check=True, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_passwords_are_made_once_and_differ_between_installations(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = (make_secrets(tmp_path / name) for name in ("one", "other"))
    assert make_secrets(tmp_path / "one") == one
    assert all(one[name] != other[name] for name in one if name != "metrics_key")
    assert len({*one.values()}) == len(one)


def test_what_was_half_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "redis.conf").touch(mode=0o444)
    assert make_secrets(tmp_path)["redis.conf"].startswith("requirepass ")


def test_the_service_reads_the_secrets_as_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    password = make_secrets(tmp_path)["redis.conf"].split()[1]
    monkeypatch.setenv("LOOKALIKE_SECRETS_DIR", str(tmp_path))
    assert load_settings().required_redis_url == f"redis://:{password}@redis:6379/0"


# --- images ---


@pytest.mark.parametrize("name", DOCKERFILES)
def test_hadolint_has_nothing_to_say(name: str) -> None:
    checked = tool("hadolint", ROOT / name)
    assert (checked.returncode, checked.stdout) == (0, "")


def test_compose_lint_has_nothing_to_say_that_is_not_explained() -> None:
    checked = tool("compose-lint", "--fail-on", "low", "docker-compose.yml")
    assert checked.returncode == 0, checked.stdout
    told = yaml.safe_load((ROOT / ".compose-lint.yml").read_text())["rules"]
    assert all(rule["reason"] for rule in told.values())


def test_what_an_image_copies_from_the_checkout_reaches_the_build() -> None:
    sent = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for name in DOCKERFILES:
        copied = re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / name).read_text(), re.MULTILINE)
        for source in " ".join(copied).split():
            assert (ROOT / source).exists(), f"{name}: {source}"
            assert any(source == path or source.startswith(f"{path}/") for path in sent), f"{name}: {source}"


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_edit_of_code_installs_no_package_again(name: str) -> None:
    code_is_in: dict[str, bool] = {}  # by stage, as far as it is read
    stage = ""
    for line in (ROOT / name).read_text().replace("\\\n", " ").splitlines():
        if found := re.match(r"FROM (\S+)(?: AS (\S+))?", line):
            stage = found[2] or "last"
            code_is_in[stage] = code_is_in.get(found[1], False)
        elif line.startswith("COPY ") and "--from" not in line:
            code_is_in[stage] |= not line.startswith("COPY requirements/")
        elif "pip " in line and line.startswith("RUN "):
            assert not code_is_in[stage], stage


def test_flower_is_told_of_the_queues_there_are() -> None:
    told: dict[str, Any] = {}
    exec((ROOT / "deploy/flower/celeryconfig.py").read_text(), told)
    assert [queue.name for queue in told["task_queues"]] == list(ALL_QUEUES)
    assert told["task_default_queue"] in ALL_QUEUES


# --- packages ---


def locked(name: str) -> dict[str, set[str]]:
    """The versions of each package in a lock, of which there may be one a version of Python."""
    pins: dict[str, set[str]] = {}
    lock = (ROOT / f"requirements/{name}.txt").read_text()
    for package, version in re.findall(r"^([a-z0-9.-]+)(?:\[.*?\])?==([^ ;]+)", lock, re.MULTILINE):
        pins.setdefault(package, set()).add(version)
    return pins


def required(extra: str) -> set[str]:
    """What an extra names, with what the project's other extras name that it takes in."""
    names: set[str] = set()
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]:
        if others := re.match(r"lookalike\[(.+)\]", line):
            names.update(*map(required, others[1].split(",")))
        else:
            names.add(re.split(r"[\[<>=~!; ]", line)[0])
    return names


def test_make_run_installs_all_that_serving_needs_in_the_versions_that_are_tested_and_no_torch() -> None:
    run, tested, torch = locked("run"), locked("base"), locked("torch")
    assert required("run") | required("milvus") | required("otel") <= run.keys()
    assert {package: versions for package, versions in run.items() if versions != tested.get(package)} == {}
    assert required("torch") <= torch.keys() - run.keys()


def test_a_wheel_holds_every_file_of_the_packages() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    rooms = [ROOT / pattern.removesuffix("*") for pattern in setuptools["packages"]["find"]["include"]]
    files = {path for room in rooms for path in room.rglob("*") if path.is_file() and path.name != "Dockerfile"}
    held = {
        path
        for package, patterns in setuptools["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    assert {path for path in files - held if path.suffix not in {".py", ".pyc"}} == set()


# --- monitoring ---


def queries() -> list[str]:
    """Everything that is asked of Prometheus: by the dashboard, by the alerts, by the autoscaler."""
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/lookalike.json").read_text())
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    return [
        *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
        *(trigger["metadata"]["query"] for made in scaled() for trigger in made["spec"]["triggers"]),
    ]


def told_metrics() -> dict[str, set[str]]:
    """The labels of everything /metrics tells, by its name in a query."""
    return {sample.name: set(sample.labels) for family in metric_families() for sample in family.samples}


def selected(node: Any) -> Iterator[tuple[str, set[str]]]:
    """The metrics of a query, with the labels they are chosen and gathered by."""
    if isinstance(node, promql_parser.VectorSelector):
        assert node.name
        yield node.name, {matcher.name for matcher in node.matchers.matchers}
    gathered_by = (
        set(node.modifier.labels) if isinstance(node, promql_parser.AggregateExpr) and node.modifier else set()
    )
    children = [getattr(node, part, None) for part in ("expr", "lhs", "rhs", "vector_selector")]
    for child in [*children, *getattr(node, "args", [])]:
        if child is not None:
            for name, labels in selected(child):
                yield name, labels | gathered_by


def test_every_metric_is_asked_for_and_none_that_does_not_exist() -> None:
    known = told_metrics() | {"up": {"job"}}
    asked = [
        found for query in queries() for found in selected(promql_parser.parse(query.replace("$__rate_interval", "1m")))
    ]
    assert [(name, labels) for name, labels in asked if not labels <= known.get(name, set())] == []
    assert {_family(name) for name, _ in asked} - {"up"} == {_family(name) for name in told_metrics()}


def _family(name: str) -> str:
    return re.sub("_(bucket|sum|count|created)$", "", name).removesuffix("_total")


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool: apt install prometheus")
@pytest.mark.parametrize("what", [("config", "--syntax-only", "prometheus.yml"), ("rules", "rules.yml")])
def test_prometheus_reads_its_files(what: tuple[str, ...]) -> None:
    *verb, name = what
    checked = subprocess.run(
        ["promtool", "check", *verb, ROOT / "deploy/prometheus" / name], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


# --- Kubernetes ---

# What of a ScaledObject is used here, after KEDA's reference of keda.sh/v1alpha1.
SCALED_OBJECT = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "keda.sh/v1alpha1"},
        "kind": {"const": "ScaledObject"},
        "metadata": {"required": ["name"]},
        "spec": {
            "additionalProperties": False,
            "required": ["scaleTargetRef", "triggers"],
            "properties": {
                "scaleTargetRef": {"required": ["name"], "properties": {"name": {"type": "string"}}},
                "minReplicaCount": {"type": "integer", "minimum": 1},
                "maxReplicaCount": {"type": "integer", "minimum": 1},
                "fallback": {
                    "required": ["failureThreshold", "replicas"],
                    "additionalProperties": {"type": "integer", "minimum": 1},
                },
                "advanced": {"type": "object"},
                "triggers": {
                    "type": "array",
                    "items": {
                        "required": ["type", "metadata"],
                        "properties": {
                            "type": {"const": "prometheus"},
                            "metadata": {
                                "required": ["serverAddress", "query", "threshold"],
                                "additionalProperties": {"type": "string"},
                            },
                        },
                    },
                },
            },
        },
    },
}


def manifests() -> list[dict[str, Any]]:
    """Whatever stands in the files, but for the list of them."""
    files = sorted(path for path in KUBERNETES.iterdir() if path.name != "kustomization.yaml")
    return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text())]


def scaled() -> list[dict[str, Any]]:
    return [manifest for manifest in manifests() if manifest["kind"] == "ScaledObject"]


def pods() -> list[tuple[str, dict[str, Any]]]:
    """The pods by what makes them."""
    return [
        (manifest["metadata"]["name"], manifest["spec"]["template"]["spec"])
        for manifest in manifests()
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job")
    ]


@pytest.mark.parametrize("manifest", manifests(), ids=lambda made: f"{made['kind']}-{made['metadata']['name']}")
def test_kubernetes_accepts_every_field(manifest: dict[str, Any]) -> None:
    if manifest["kind"] == "ScaledObject":
        jsonschema.validate(manifest, SCALED_OBJECT)
        assert manifest["spec"]["scaleTargetRef"]["name"] in {name for name, _ in pods()}
    else:
        kubernetes_validate.validate(manifest, "1.37", strict=True)


def test_every_file_is_applied_but_the_example_of_a_secret() -> None:
    applied = set(yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"])
    assert applied == {path.name for path in KUBERNETES.iterdir()} - {"kustomization.yaml", "secret.example.yaml"}


@pytest.mark.parametrize(("name", "pod"), pods(), ids=[name for name, _ in pods()])
def test_a_pod_asks_for_no_more_than_a_restricted_namespace_allows(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]


def test_selectors_choose_the_pods_they_are_made_for() -> None:
    labels = [
        manifest["spec"]["template"]["metadata"]["labels"]
        for manifest in manifests()
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job")
    ]
    for manifest in manifests():
        spec = manifest.get("spec", {})
        chosen = spec.get("selector") or spec.get("podSelector") or {}
        wanted = chosen.get("matchLabels", {} if "matchExpressions" in chosen else chosen)
        assert any(wanted.items() <= made.items() for made in labels), manifest["metadata"]["name"]


def test_the_documentation_builds_and_names_every_image_of_the_cluster() -> None:
    needed = {container["image"].partition(":")[0] for _, pod in pods() for container in pod["containers"]}
    loop = next(
        block.commands for block in blocks(ROOT / "docs/deployment.md") if "kustomize edit set image" in block.text
    )
    assert "\ndocker compose build\n" in loop
    built = {made["image"].partition(":")[0] for made in services().values() if "build" in made}
    handled = {f"lookalike-{name}" for name in re.findall(r"^for image in (.+); do$", loop, re.MULTILINE)[0].split()}
    assert needed - {"redis"} == handled <= built


def test_a_cluster_is_prepared_as_the_compose_installation_is() -> None:
    (job,) = (pod for name, pod in pods() if name == "lookalike-prepare")
    assert job["containers"][0]["args"] == services()["prepare"]["command"]
