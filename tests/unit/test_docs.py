"""The documentation keeps up with the code, and its links lead somewhere."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from api.openapi.schemas import options_of
from shared import errors
from shared.jobs.contract import EmbedRequest, ImageOptions, SearchRequest
from shared.jobs.reindex_contract import ReindexRequest
from tests import ROOT
from tests.documents.blocks import Block, blocks
from tests.documents.commands import verbs
from tests.documents.contract import default_settings
from tests.documents.facts import FACTS
from tests.documents.regions import pages, rewritten, table

PAGES = pages()
_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_FENCED = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_what_is_written_by_programs_is_what_they_write_now(page: Path) -> None:
    text = page.read_text()
    assert rewritten(text, FACTS) == text, "run `make docs`"


def test_every_fact_stands_on_one_page() -> None:
    told = re.findall(r"<!-- generated: ([a-z-]+) -->", "\n".join(page.read_text() for page in PAGES))
    assert sorted(told) == sorted(FACTS)


def test_every_error_code_is_in_the_table() -> None:
    codes = {e.code for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.LookalikeError)}
    told = (ROOT / "docs/api.md").read_text()
    assert [code for code in sorted(codes) if f"`{code}`" not in told] == []


@pytest.mark.parametrize(("name", "command"), list(verbs()), ids=[name for name, _ in verbs()])
def test_every_verb_has_a_help_and_json(name: str, command: click.Command) -> None:
    assert command.help
    assert "--json" in {name for parameter in command.params for name in parameter.opts}


def test_every_option_of_a_submit_says_what_it_means() -> None:
    settings = default_settings(webhook_hosts="hooks.example.org", webhook_secret="whsec_" + "A" * 32)
    contracts = (SearchRequest, EmbedRequest, ImageOptions, ReindexRequest)
    silent = {
        name
        for contract in contracts
        for name, schema in options_of(settings, contract).items()
        if not schema.get("description")
    }
    assert silent == set()


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    assert [link for link in _links(page) if not _leads_somewhere(page, link)] == []


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link.split("#")[0]).resolve() for link in _links(index)}
    assert [page.name for page in PAGES if page != index and page not in linked] == []


def test_every_make_target_named_on_a_page_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z]+)", page.read_text())}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_every_block_names_its_language_and_every_command_is_run_or_says_why_not(page: Path) -> None:
    assert [block.line for block in blocks(page) if not block.language] == []
    assert [block.line for block in blocks(page) if block.info and not block.reason] == []


def test_commands_of_a_console_are_those_behind_the_prompt() -> None:
    block = Block(1, "console", "", "$ one \\\n>  more\nanswer\n$ two\n")
    assert block.commands == "one \\\n more\ntwo\n"


def test_the_notebook_holds_no_outputs() -> None:
    cells = json.loads((ROOT / "docs/clients/quickstart.ipynb").read_text())["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.skipif(shutil.which("patch") is None, reason="there is no patch(1)")
def test_the_diff_of_a_new_kind_of_job_still_applies() -> None:
    [diff] = [block.text for block in blocks(ROOT / "docs/extending.md") if block.language == "diff"]
    tried = subprocess.run(
        ["patch", "-p1", "--batch", "--dry-run"], cwd=ROOT, input=diff, capture_output=True, text=True, check=False
    )
    assert tried.returncode == 0, tried.stdout
    assert "fuzz" not in tried.stdout, tried.stdout  # it would go where it does not belong


def test_the_readme_takes_ten_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 250


def test_a_region_is_written_anew_and_the_rest_stays() -> None:
    text = "before\n<!-- generated: a -->\nold\n<!-- end -->\nafter\n"
    assert rewritten(text, {"a": lambda: "new"}) == text.replace("old", "\nnew\n")


def test_a_table_cell_stays_in_its_cell() -> None:
    assert table(["a", "b"], [("x|y", "two\nlines")]).splitlines()[2] == "| x\\|y | two lines |"


def _links(page: Path) -> Iterator[str]:
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        if not re.match(r"[a-z]+:", link):
            yield link


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", target.read_text()), re.MULTILINE)
    return anchor in {_anchor(heading) for heading in headings}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_file_that_the_documentation_names_is_there() -> None:
    named = {
        (page.name, path)
        for page in pages()
        for path in re.findall(
            r"`((?:api|worker|pipeline|shared|lookalike|tests|deploy|docs)/[\w./-]+)`", page.read_text()
        )
    }
    assert named
    assert [(page, path) for page, path in sorted(named) if not (ROOT / path).exists()] == []
