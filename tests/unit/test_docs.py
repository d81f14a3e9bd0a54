"""The pages say what the code does: runbooks, links, commands, file names and config examples."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer
from typer.core import TyperGroup

from sidecar.cli.app import app
from sidecar.config.load import load
from sidecar.facts import Detector, Moment, Scope, Signal
from sidecar.incident.lifecycle import Claim, Incident
from sidecar.incident.telling import CHECKLISTS, runbook

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
ADRS: Final = sorted((DOCS / "adr").glob("*.md"))
RUNBOOK: Final = (
    "What it means", "Look first", "Checklist", "Likely causes", "What automation did", "How to verify", "How to undo",
)  # fmt: skip
ADR: Final = ("Context", "Decision", "Consequences", "What would change our mind")
_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SPAN: Final = re.compile(r"`([^`\n]+)`")
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_TARGET: Final = re.compile(r"^([a-z-]+):.*## ", re.MULTILINE)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """Return the page without its fenced blocks."""
    return _FENCE.sub("", read(page))


def headings(page: Path) -> list[str]:
    return [line.lstrip("#").strip() for line in prose(page).splitlines() if line.startswith("#")]


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and GitLab make it."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.replace(" ", "-")


def shown(page: Path) -> Iterator[str]:
    """Yield what a reader may copy: code spans, lines of `sh` blocks, and lines after `$` of `console` blocks."""
    yield from _SPAN.findall(prose(page))
    for language, block in _FENCE.findall(read(page)):
        for line in block.replace("\\\n", " ").splitlines():
            if language == "sh":
                yield line.partition("  #")[0].strip()
            elif language == "console" and line.startswith("$ "):
                yield line.removeprefix("$ ").partition("  #")[0].strip()


def commands(page: Path) -> Iterator[str]:
    for text in shown(page):
        for part in re.split(r" [|] | && | > ", text):
            if re.match(r"(sidecar|make) [a-z-]|\S*python3? -m ", part):
                yield part


def problem_of(text: str) -> str:
    """Return what is wrong with a `sidecar …` command; empty when the CLI has it."""
    words = [word for word in shlex.split(text)[1:] if word not in ("…", "...")]
    command = typer.main.get_command(app)
    options = set(_options(command))
    while words and isinstance(command, TyperGroup):
        verb = next((word for word in words if not word.startswith("-")), "")
        found = command.commands.get(verb)
        if found is None:
            return f"{command.name} has no verb {verb}" if verb else ""
        words.remove(verb)
        command = found
        options.update(_options(command))
    unknown = [word for word in words if word.startswith("-") and word.partition("=")[0] not in options]
    return f"{command.name} has no option {unknown[0]}" if unknown else ""


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from parameter.opts


def incident_of(detector: Detector) -> Incident:
    now = Moment(1.0, 1.0)
    signal = Signal(detector, Scope.service(), 1.0, 0.0, 30, 2.0, 1.0, 0.0)
    return Incident(1, Scope.service(), now, now, now, claims=(Claim(signal, signal, now, now),))


@pytest.mark.parametrize("detector", Detector)
def test_every_signal_has_a_runbook(detector: Detector) -> None:
    """
    The page that an alert links exists, answers seven questions, and lists the steps that the incident shows.
    """
    page = ROOT / runbook(incident_of(detector))
    assert headings(page)[1:] == list(RUNBOOK)
    listed = re.findall(r"^- \[ \] (.+)$", read(page), re.MULTILINE)
    assert listed == list(CHECKLISTS[detector])


def test_every_runbook_has_a_signal() -> None:
    """
    No page is left behind by a detector that is gone.
    """
    assert {page.stem for page in (DOCS / "runbooks").glob("*.md")} == {str(detector) for detector in Detector}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """
    A link between pages names a file that exists, and its anchor a heading of it.
    """
    broken = []
    for link in _LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in map(slug, headings(target))):
            broken.append(link)
    assert broken == []


def test_the_index_names_every_page() -> None:
    """
    Whoever begins at `docs/README.md` finds all of them.
    """
    index = DOCS / "README.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(prose(index))}
    assert [named(page) for page in sorted(DOCS.rglob("*.md")) if page != index and page not in linked] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_exists(page: Path) -> None:
    """
    What a page tells the reader to type, the CLI, the Makefile or a module answers to.
    """
    targets = _TARGET.findall(read(ROOT / "Makefile"))
    wrong = []
    for text in commands(page):
        tool, verb = text.split()[:2]
        match tool:
            case "sidecar":
                wrong += [f"{text}: {problem}"] if (problem := problem_of(text)) else []
            case "make":
                wrong += [text] if verb not in targets and "=" not in verb else []
            case _:
                wrong += [text] if importlib.util.find_spec(text.split()[2]) is None else []
    assert wrong == []


def test_a_wrong_command_would_be_found() -> None:
    """
    A verb or an option that the CLI does not have is a problem, one that it has is none.
    """
    assert problem_of("sidecar incident confirm 12") == ""
    assert problem_of("sidecar config apply new.yaml --reason why --confirm-within 2m") == ""
    assert problem_of("sidecar incident frobnicate 12") == "incident has no verb frobnicate"
    assert problem_of("sidecar status --fast") == "status has no option --fast"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_config_example_loads(page: Path) -> None:
    """
    A `yaml` block that begins with `# config` is a configuration that the loader takes.
    """
    for language, block in _FENCE.findall(read(page)):
        if language == "yaml" and block.startswith("# config"):
            load(block, name=named(page), environ={}, flags={"--upstream": "http://127.0.0.1:9000"})


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_is_named_exists(page: Path) -> None:
    """
    A Python file or a folder of the sources in a code span is there, from the root or from `sidecar/`.
    """
    spans = [span for span in _SPAN.findall(prose(page)) if re.fullmatch(r"[\w./-]+(\.py|/)", span)]
    sources = [span for span in spans if span.endswith(".py") or span.startswith(("sidecar/", "tests/", "docs/"))]
    assert [s for s in sources if not any((base / s).exists() for base in (ROOT, ROOT / "sidecar"))] == []


@pytest.mark.parametrize("page", ADRS, ids=named)
def test_every_decision_says_what_would_change_it(page: Path) -> None:
    """
    A decision record has its four parts, in order, under a numbered title.
    """
    title, *parts = headings(page)
    assert re.fullmatch(r"\d+\. .+", title)
    assert int(title.partition(".")[0]) == int(page.name[:4])
    assert parts == list(ADR)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_page_names_a_path_of_one_machine(page: Path) -> None:
    """
    Paths are relative, below a well-known folder, or invented for an example.
    """
    assert re.findall(r"(?<![\w.])/(?:home|work|root|Users)/\S*", read(page)) == []


def test_the_overhead_table_can_be_refreshed() -> None:
    """
    The README marks the figures of `make bench`, so that a new run replaces them and nothing else.
    """
    text = read(ROOT / "README.md")
    assert text.count("<!-- bench -->") == text.count("<!-- /bench -->") == 1
    assert text.index("<!-- bench -->") < text.index("<!-- /bench -->")
