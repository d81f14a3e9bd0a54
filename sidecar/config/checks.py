"""What must hold between the sections of a config: no request without a way, no listener twice, no loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sidecar.config.errors import ConfigError
from sidecar.config.kinds import Fault, Step
from sidecar.config.policies import Address, Endpoint
from sidecar.config.schema import Config, is_loopback
from sidecar.config.sections import MatchSection, too_dear
from sidecar.config.tree import Node
from sidecar.config.units import shown

MOST_ROUTES: Final = 500
"""Each is a set of metric series, of detectors and of buckets, and each request tries them in order."""

_EVERYWHERE: Final = ("0.0.0.0", "::")


def between(config: Config) -> Iterator[Fault]:
    """
    Yield what is wrong between sections that are each valid.

    A fault's `at` counts routes, receivers and tokens as *config* has them.
    """
    yield from _loops(config)
    yield from _listeners(config)
    if config.service.limit is not None:
        for index, route in enumerate(config.routes):
            if route.limit is not None:
                yield from too_dear(config.service.limit, route.limit.cost, ("routes", index, "limit", "cost"))
    if len(config.routes) > MOST_ROUTES:
        yield Fault(
            ("routes",), f"{len(config.routes)} routes are more than {MOST_ROUTES}", "let patterns share a route"
        )
    else:
        yield from _unreachable([(route.name, route.match) for route in config.routes])


def without_upstream(tree: Node) -> Iterator[ConfigError]:
    """Yield the error of a config that leads nowhere, whatever else is wrong with it; stands in the file."""
    upstream = tree.entries.get("upstream")
    endpoints = upstream.entries.get("endpoints") if upstream is not None else None
    if endpoints is None or (endpoints.kind == "list" and not endpoints.items):
        mark = next(node.mark for node in (endpoints, upstream, tree) if node and node.mark.file == tree.mark.file)
        hint = "add `upstream: {endpoints: [http://127.0.0.1:9000]}`, or start with --upstream http://HOST:PORT"
        yield mark.error("upstream.endpoints", "no upstream is given", hint)


def named_twice(tree: Node) -> Iterator[Fault]:
    """Yield a fault for each route, receiver and token whose name is taken, whatever else is wrong with it."""
    admin = tree.entries.get("admin")
    tokens = admin.entries.get("tokens") if admin is not None else None
    for at, named, what in (
        (("routes",), tree.entries.get("routes"), "route"),
        (("notify",), tree.entries.get("notify"), "receiver"),
        (("admin", "tokens"), tokens, "token"),
    ):
        items = named.items if named is not None else []
        names = [_name(item) for item in items]
        known: set[str] = set()
        for index, name in enumerate(names):
            if name and name in known:
                key = "name" if "name" in items[index].entries else "type"
                hint = f"give each {what} a `name` of its own"
                yield Fault((*at, index, key), f"a second {what} is called {shown(name)}", hint)
            known.add(name)


def _name(item: Node) -> str:
    found = item.entries.get("name") or item.entries.get("type")
    return found.scalar if found is not None and isinstance(found.scalar, str) else ""


def _loops(config: Config) -> Iterator[Fault]:
    at: tuple[Step, ...] = ("upstream", "endpoints")
    own = {"listen": config.listen, "observe": config.observe, "admin.listen": config.admin.listen}
    for index, endpoint in enumerate(config.upstream.endpoints):
        for key, address in own.items():
            if _leads_to(endpoint, address):
                problem = f"{endpoint} is the sidecar's own {key} address"
                needs = (key.partition(".")[0],)
                yield Fault((*at, index), problem, "name the address of the API behind", needs)


def _leads_to(endpoint: Endpoint, listener: Address) -> bool:
    if endpoint.path or listener.path:
        return endpoint.path == listener.path
    if not listener.port or endpoint.port != listener.port:
        return False
    here = is_loopback(Address(endpoint.host, endpoint.port))
    return endpoint.host == listener.host or (here and (listener.host in _EVERYWHERE or is_loopback(listener)))


def _listeners(config: Config) -> Iterator[Fault]:
    listeners: list[tuple[tuple[Step, ...], Address]] = [
        (("listen",), config.listen),
        (("observe",), config.observe),
        (("admin", "listen"), config.admin.listen),
    ]
    for index, (at, address) in enumerate(listeners):
        for before, other in listeners[:index]:
            if _collide(address, other):
                first = ".".join(map(str, before))
                yield Fault(at, f"{address} is taken by {first}", "choose another port", (str(before[0]),))


def _collide(one: Address, other: Address) -> bool:
    if one.path or other.path:
        return one.path == other.path
    same = one.host == other.host or one.host in _EVERYWHERE or other.host in _EVERYWHERE
    return bool(one.port) and one.port == other.port and same


def _unreachable(routes: Sequence[tuple[str, MatchSection]]) -> Iterator[Fault]:
    for index, (name, match) in enumerate(routes):
        for before, earlier in routes[:index]:
            if before != name and _covers(earlier, match):
                problem = f"no request reaches {name}: {before}, above it, takes them all"
                yield Fault(("routes", index), problem, f"move {name} above {before}, or remove it")
                break


def _covers(wide: MatchSection, narrow: MatchSection) -> bool:
    for mine, theirs in ((wide.methods, narrow.methods), (wide.hosts, narrow.hosts)):
        if mine and (not theirs or not set(theirs) <= set(mine)):
            return False
    return covers_path(wide.path, narrow.path)


def covers_path(wide: str, narrow: str) -> bool:
    """Tell whether every path that *narrow* matches is matched by *wide* as well; see `policies.Match`."""
    ours, theirs = wide[1:].split("/"), narrow[1:].split("/")
    for index, segment in enumerate(ours):
        if segment == "**":
            return True
        if index >= len(theirs) or theirs[index] == "**" or (segment != theirs[index] and segment != "*"):
            return False
    return len(ours) == len(theirs)
