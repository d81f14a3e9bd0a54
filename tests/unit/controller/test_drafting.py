"""The record behind a post-mortem, read from a real store that holds what a played engine wanted stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from sidecar.controller import effects as fx
from sidecar.controller.commands import ClearOverride, SetOverride
from sidecar.controller.drafting import PAGE, Drafter
from sidecar.facts import Action, Scope
from sidecar.store.store import Store
from tests.support.plays import break_route, broken
from tests.support.world import World


class Played:
    """What a controller knows of incidents, of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def incident(self, incident_id: int) -> fx.Document | None:
        return self._world.engine.incident(incident_id, self._world.now)

    async def evidence(self, incident_id: int) -> fx.Document | None:
        return self._world.engine.evidence(incident_id)

    def proposals(self, state: str | None) -> list[fx.Document]:
        return []


async def draft(world: World, state: Path, number: int = 1) -> str:
    """Return the draft by a store that holds all that *world* wanted stored."""
    store = Store.open(state)
    store.write([effect for effect in world.effects if isinstance(effect, get_args(fx.Write))])

    async def read(ask: Callable[[Store], Any], default: Any = None) -> Any:
        return ask(store)

    played = Played(world)
    markdown = await Drafter(played, world.engine, read, played).markdown(number)  # type: ignore[arg-type]
    store.close()
    assert markdown is not None
    return markdown


def override(world: World, route: str = "checkout", author: str = "lea") -> None:
    world.command(SetOverride(Scope.route(route), Action.ALLOW, 600.0, "the pager rang", author))


async def test_what_people_have_just_done_stands_in_a_running_incident_s_draft(tmp_path: Path) -> None:
    """
    An override on its scope is an answer, though the incident has had no event of its own since.
    """
    world = broken()
    assert "No person answered." in await draft(world, tmp_path / "before")
    override(world)
    markdown = await draft(world, tmp_path / "after")
    assert "Override on `route:checkout`: allow for 10m: the pager rang" in markdown
    assert "lea was the first to answer" in markdown


async def test_an_override_elsewhere_answers_nothing(tmp_path: Path) -> None:
    """
    Only what bears on its scope is its story.
    """
    world = broken()
    override(world, "search")
    assert "No person answered." in await draft(world, tmp_path)


async def test_what_came_after_the_end_is_left_out(tmp_path: Path) -> None:
    """
    Once it is resolved its end bounds what is read: what people did while it ran is there, however many other events there
    were before, and what they did later is not.
    """
    world = broken()
    override(world, author="lea")
    world.effects += [fx.AppendEvent("detect.rebaselined", world.now.unix, "automation") for _ in range(2 * PAGE)]
    world.command(ClearOverride(Scope.route("checkout"), "kim"))
    break_route(world, fail=0.0)
    world.until(lambda: world.incident()["state"] == "resolved", 200)
    world.run(5)
    override(world, author="max")
    markdown = await draft(world, tmp_path)
    assert "| kim |" in markdown
    assert "lea was the first to answer" in markdown
    assert "| max |" not in markdown
