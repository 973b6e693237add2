"""Images without an engine: what a Dockerfile's target would hold, laid out and run read-only by bubblewrap.

The packages are those of this virtual environment, but only those that the image's lock names. Not tried is what takes
an engine or a network: base images, the installation itself, and the user's number outside.
"""

import json
import re
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests import ROOT

_STAGE = re.compile(r"FROM (\S+)(?: AS (\S+))?")
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+==[^\\\n]+)", re.MULTILINE)


@dataclass(frozen=True)
class Image:
    """The last stage of a Dockerfile, or the one of a target, with the stages that it is made of."""

    instructions: dict[str, list[str]]

    @classmethod
    def read(cls, dockerfile: str, target: str | None = None) -> "Image":
        stages: dict[str, list[str]] = {}
        name = ""
        for line in (ROOT / dockerfile).read_text().replace("\\\n", " ").splitlines():
            if found := _STAGE.match(line):
                name = found[2] or "last"
                stages[name] = list(stages.get(found[1], []))
            elif line and not line.startswith("#"):
                stages[name].append(line)
        return cls({"": stages[target or name], **stages})

    def all(self, instruction: str, stage: str = "") -> list[str]:
        return [
            line.removeprefix(instruction).strip() for line in self.instructions[stage] if line.startswith(instruction)
        ]

    @property
    def environment(self) -> dict[str, str]:
        pairs = " ".join(self.all("ENV ")).split()
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def command(self) -> list[str]:
        command: list[str] = json.loads(self.all("CMD ")[-1])
        return [*(json.loads(self.all("ENTRYPOINT ")[-1]) if self.all("ENTRYPOINT ") else []), *command]

    @property
    def health_check(self) -> list[str]:
        command: list[str] = json.loads(self.all("HEALTHCHECK ")[-1].partition("CMD ")[2])
        return command

    @property
    def copied(self) -> list[tuple[str, str]]:
        """(path in the checkout, path in the image), through the stages it is built in."""
        built_in = {found[1] for found in map(re.compile(r"--from=(\S+)").match, self.all("COPY ")) if found}
        lines = [line for stage in built_in for line in self.all("COPY ", stage)]
        pairs = []
        for line in lines:
            *sources, destination = line.split()
            pairs += [(source, destination) for source in sources]
        return pairs

    def lay_out(self, directory: Path) -> None:
        """Make /app and /opt/venv of the image below a directory."""
        for source, destination in self.copied:
            if destination.startswith("/app/"):
                ignored = shutil.ignore_patterns("__pycache__", "Dockerfile")
                shutil.copytree(ROOT / source, directory / destination[1:], ignore=ignored)
        made = directory / "opt/venv"
        venv.create(made, symlinks=True)
        packages = next(made.glob("lib/python*/site-packages"))
        for name in self._locked():
            here = distribution(name)
            for top in {file.parts[0] for file in here.files or [] if file.parts[0] not in ("..", "__pycache__")}:
                if not (packages / top).exists():
                    (packages / top).symlink_to(str(here.locate_file(top)))

    def _locked(self) -> list[str]:
        locks = [source for source, _ in self.copied if source.startswith("requirements/")]
        wanted = [Requirement(line) for lock in locks for line in _LOCKED.findall((ROOT / lock).read_text())]
        return [package.name for package in wanted if not package.marker or package.marker.evaluate()]


def sandboxed(
    image: Image, root: Path, command: list[str], *, hostname: str, data: Path, seen: list[Path], **more: str
) -> list[str]:
    """The command line that runs a command as in a container of the image: nothing but /data and /tmp can be written.

    Args:
        root: where the image was laid out.
        seen: what can be read besides, under the same paths.
        more: the environment that whoever starts the container adds.
    """
    read_only = [Path("/usr"), Path("/etc"), Path("/sys"), Path(sys.base_prefix), Path(sys.prefix), *seen]
    system = [f"/{name}" for name in ("bin", "lib", "lib64") if Path(f"/{name}").exists()]
    environment = {**image.environment, **more}
    environment["PATH"] = environment["PATH"].replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
    return [
        *(
            "bwrap",
            "--unshare-all",
            "--share-net",
            "--hostname",
            hostname,
            "--uid",
            "10001",
            "--gid",
            "10001",
            "--cap-drop",
            "ALL",
        ),
        *("--die-with-parent", "--clearenv", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"),
        *(word for path in read_only for word in ("--ro-bind", str(path), str(path))),
        *(word for path in system for word in ("--ro-bind", path, path)),
        *("--ro-bind", str(root / "app"), "/app", "--ro-bind", str(root / "opt"), "/opt", "--bind", str(data), "/data"),
        *("--remount-ro", "/", "--chdir", image.all("WORKDIR ")[-1]),
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        *command,
    ]


def can_be_run() -> bool:
    """Whether bubblewrap is there, and the kernel lets it."""
    if not shutil.which("bwrap"):
        return False
    tried = ["bwrap", "--unshare-all", "--uid", "10001", "--ro-bind", "/", "/", "true"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0
