"""
Text, environment and flags to one `Compiled`, or to everything that is wrong with them.

Precedence: default < file < environment < flag. Every error stands where its value came from: a line and column of the
file, or the name of the variable or flag. A text is judged as a whole: what is wrong between sections is also looked
for among those sections that are valid, so that one reading shows every fault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from pydantic import ValidationError

from sidecar.config import layers
from sidecar.config.catalogue import json_schema
from sidecar.config.checks import between, named_twice, without_upstream
from sidecar.config.compile import compile_config, keep_admin
from sidecar.config.errors import ConfigError, ConfigErrors
from sidecar.config.faults import MOST_ERRORS, located, of_validation, unanswered
from sidecar.config.kinds import Fault, Step
from sidecar.config.policies import Compiled
from sidecar.config.schema import Config
from sidecar.config.tree import Node, Plain, parse

__all__ = [
    "NOTHING",
    "ConfigError",
    "ConfigErrors",
    "json_schema",
    "keep_admin",
    "load",
    "read",
    "static_changes",
    "text_hash",
]

NOTHING: Final[Mapping[str, str]] = {}

_LISTS: Final = ("routes", "notify")


def load(text: str, *, name: str, environ: Mapping[str, str], flags: Mapping[str, str]) -> Compiled:
    """
    Return the config that *text*, *environ* and *flags* make together.

    Args:
        text: YAML; may be empty.
        name: What errors call it, usually the file's path.
        environ: All environment variables; only those that begin with `SIDECAR__` are read.
        flags: By the flag's name: `--upstream`, `--listen`, `--workers`.

    Raises:
        ConfigErrors: with every fault at once.
    """
    tree, errors = _layered(text, name, environ, flags)
    config, found = _validated(tree)
    errors += found
    errors += without_upstream(tree)
    if config is None or errors:
        raise ConfigErrors(errors)
    return compile_config(config)


def read(text: str, *, name: str, environ: Mapping[str, str] = NOTHING, flags: Mapping[str, str] = NOTHING) -> Config:
    """
    Return the schema's values of *text* under *environ* and *flags*; other than for `load`, an upstream may be missing.

    Raises:
        ConfigErrors: with every fault at once.
    """
    tree, errors = _layered(text, name, environ, flags)
    config, found = _validated(tree)
    if config is None or errors or found:
        raise ConfigErrors([*errors, *found])
    return config


def text_hash(text: str) -> str:
    """Return the SHA-256 of *text* in hex: what a version is known by."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def static_changes(old: Compiled, new: Compiled, *, text: str = "", name: str = "config") -> tuple[ConfigError, ...]:
    """
    Return an error for each static key in which *new* differs from *old*, placed in *text* where it stands there.

    The tokens of `admin` are no error: an applied version leaves them alone, see `keep_admin`.
    """
    pairs: Iterable[tuple[tuple[Step, ...], object, object]] = (
        (("listen",), old.static.listen, new.static.listen),
        (("observe",), old.static.observe, new.static.observe),
        (("admin", "listen"), old.static.admin, new.static.admin),
        (("workers",), old.static.workers, new.static.workers),
        (("state",), old.static.state, new.static.state),
        (("access_log", "path"), old.static.access_log, new.static.access_log),
    )
    tree = parse(text, name)
    hint = "write it to the file and send SIGHUP to the sidecar, or take this change out"
    return tuple(
        located(tree, Fault(at, f"is static: {before} cannot become {after} while it runs", hint))
        for at, before, after in pairs
        if before != after
    )


def _layered(
    text: str, name: str, environ: Mapping[str, str], flags: Mapping[str, str]
) -> tuple[Node, list[ConfigError]]:
    errors: list[ConfigError] = []
    tree = layers.lay(parse(text, name, errors), layers.from_environment(environ), errors)
    return layers.lay(tree, layers.from_flags(flags), errors), errors


def _validated(tree: Node) -> tuple[Config | None, list[ConfigError]]:
    if tree.kind != "map":
        return None, [tree.mark.error("", "a config is keys and values", "begin with `listen: 0.0.0.0:8080`")]
    plain = tree.plain()
    config, errors = _attempt(tree, plain)
    known = {error.path for error in errors}
    errors += [error for error in islice(unanswered(tree), MOST_ERRORS) if error.path not in known]
    broken = {error.path for error in errors}
    errors += [located(tree, fault) for fault in named_twice(tree)]
    valid, kept = (config, {}) if config is not None and not broken else _without(plain, broken)
    for fault in between(valid) if valid else ():
        needed = {*fault.needs, str(fault.at[0])} - set(_LISTS)
        if not any(path.partition(".")[0] in needed for path in broken):
            errors.append(located(tree, _renumbered(fault, kept)))
    return config, errors


def _attempt(tree: Node, plain: Plain) -> tuple[Config | None, list[ConfigError]]:
    try:
        return Config.model_validate(plain), []
    except ValidationError as invalid:
        return None, list(of_validation(tree, invalid))


def _without(plain: Any, broken: set[str]) -> tuple[Config | None, dict[str, list[int]]]:
    """Return the config of those sections, routes and receivers that are valid, and the old index of each kept one."""
    kept: dict[str, list[int]] = {}
    rest: dict[str, Any] = {}
    for key, value in plain.items():
        if key in _LISTS and isinstance(value, list) and key not in broken:
            kept[key] = [index for index in range(len(value)) if not _touched(f"{key}.{index}", broken)]
            rest[key] = [value[index] for index in kept[key]]
        elif not _touched(key, broken):
            rest[key] = value
    try:
        return Config.model_validate(rest), kept
    except ValidationError:
        return None, {}


def _touched(path: str, broken: set[str]) -> bool:
    return any(each == path or each.startswith(f"{path}.") for each in broken)


def _renumbered(fault: Fault, kept: Mapping[str, list[int]]) -> Fault:
    if len(fault.at) < 2 or (numbers := kept.get(str(fault.at[0]))) is None:
        return fault
    first, index, *rest = fault.at
    return Fault((first, numbers[int(index)], *rest), fault.problem, fault.hint, fault.needs)
