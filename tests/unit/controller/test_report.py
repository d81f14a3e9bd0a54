"""The post-mortem as a page: whole, safe, the same bytes for the same record."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

from sidecar.controller.report import render
from sidecar.incident.postmortem.draft import postmortem
from tests.support import documents as d
from tests.support.records import ended, record

VOID = {"meta", "hr", "br", "img"}


class Balance(HTMLParser):
    """Fails at a tag that is closed in the wrong place."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(text)


def page(title: str = "Incident 1") -> tuple[str, str]:
    """Return the draft of a played outage, and its page."""
    kept = record(ended(), proposals=[d.PROPOSAL])
    draft = postmortem(kept)
    return draft, render(draft, title, kept)


def test_the_same_record_gives_the_same_bytes() -> None:
    """
    Two runs of the same play, two pages, no difference: no day, no random name.
    """
    assert page() == page()


def test_drawing_leaves_the_import_system_as_it_was() -> None:
    """
    Each finder can still say where a module is: what pygal adds cannot, and Python 3.11 would warn at later imports.
    """
    page()
    assert [finder for finder in sys.meta_path if not hasattr(finder, "find_spec")] == []


def test_the_page_is_whole_and_has_every_section_of_the_draft() -> None:
    """
    Every tag is closed; the sections are the draft's, with the course of the incident before its timeline.
    """
    draft, text = page()
    reader = Balance()
    reader.feed(text)
    sections = re.findall(r"^## (.+)$", draft, re.MULTILINE)
    sections.insert(sections.index("Timeline"), "Course")
    assert (reader.open, reader.headings) == ([], sections)


def test_its_plots_are_the_record() -> None:
    """
    Three plots as well-formed SVG: the course of the incident, what passed of the isolation, latency of the evidence.
    """
    _, text = page()
    plots = [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>(?=</figure>)", text, re.DOTALL)]
    assert [plot.get("id") for plot in plots] == ["chart-traffic", "chart-shares", "chart-latency"]
    words = " ".join("".join(plot.itertext()) for plot in plots)
    assert all(name in words for name in ("arrived", "failed", "refused", "p50", "p95", "isolation-1"))


def test_nothing_runs_and_nothing_is_loaded() -> None:
    """
    No script, no handler, no address but the names of XML; free text stays text.
    """
    kept = record(ended())
    note = {"text": "<script>alert(1)</script> <img src=x onerror=y>"}
    kept = replace(kept, events=[*kept.events, {**kept.events[-1], "kind": "incident.note", "body": note}])
    text = render(postmortem(kept), "<b>&", kept)
    assert "<script" not in text
    assert "<img" not in text
    assert "<title>&lt;b&gt;&amp;</title>" in text
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_without_evidence_there_are_fewer_plots() -> None:
    """
    Evidence that is gone, and an incident without an isolation, leave the page readable.
    """
    kept = record(ended(), evidence=None)
    assert render(postmortem(kept), "t", kept).count("<svg") == 2
    quiet = replace(kept, account=None, events=[e for e in kept.events if not e["kind"].startswith("isolation.")])
    assert "<svg" not in render(postmortem(quiet), "t", quiet)


def test_every_line_of_the_timeline_leads_to_its_datum() -> None:
    """
    Each link of the page has its target on it.
    """
    _, text = page()
    links = re.findall(r'href="#(datum-\d+)"', text)
    assert links
    assert [f'<h3 id="{link}">' in text for link in links] == [True] * len(links)
