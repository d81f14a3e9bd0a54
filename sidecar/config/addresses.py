"""The kinds of value that say where something is; see `kinds.py` for what a row says."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import Annotated, Final

from sidecar.config import units
from sidecar.config.kinds import Kind, text_schema
from sidecar.config.policies import Address, Endpoint
from sidecar.config.units import UnitError, shown

ListenAddress = Annotated[
    Address,
    Kind(
        "address",
        "HOST:PORT, [IPV6]:PORT or unix:/PATH",
        units.parse_address,
        text_schema(r".+:[0-9]{1,5}|unix:/.+", "127.0.0.1:8080", "[::1]:8080", "unix:/run/sidecar/admin.sock"),
        str,
    ),
]


def _endpoint(value: object) -> Endpoint:
    if not isinstance(value, dict):
        return units.parse_endpoint(value)
    unknown = next((key for key in value if key not in ("url", "weight")), None)
    if unknown is not None or "url" not in value:
        raise UnitError(f"{shown(unknown)} is no key of an endpoint" if unknown else "url is missing", _WEIGHTED)
    weight = value.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= 1000:
        raise UnitError(f"{shown(weight)} is not a weight", "write a number from 1 to 1000")
    return replace(units.parse_endpoint(value["url"]), weight=weight)


def _write_endpoint(endpoint: Endpoint) -> object:
    url = units.format_endpoint(endpoint)
    return url if endpoint.weight == 1 else {"url": url, "weight": endpoint.weight}


_WEIGHTED: Final = "write http://HOST:PORT, or {url: http://HOST:PORT, weight: 2}"
_URL_SCHEMA: Final = text_schema(r"https?://[^/?#@]+/?|unix:/.+", "http://127.0.0.1:9000", "unix:/run/api.sock")
EndpointUrl = Annotated[
    Endpoint,
    Kind(
        "URL",
        "http://HOST:PORT, https://HOST:PORT or unix:/PATH, or {url, weight}",
        _endpoint,
        {
            "anyOf": [
                _URL_SCHEMA,
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["url"],
                    "properties": {
                        "url": _URL_SCHEMA,
                        "weight": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1},
                    },
                },
            ]
        },
        _write_endpoint,
    ),
]


def _host(value: object) -> str:
    if not isinstance(value, str):
        raise UnitError(f"{shown(value)} is not a host", f'put it in quotes: "{shown(value)}"')
    if re.fullmatch(r".+:[0-9]+", value) and value.count(":") == 1:
        raise UnitError(f"{shown(value)} has a port", "write the host alone: routes match on it whatever the port")
    return units.parse_host(value.strip("[]"))


def _network(value: object) -> str:
    text = value if isinstance(value, str) else ""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        better = f"its host bits are set: write {ipaddress.ip_network(text, strict=False)}"
    except ValueError:
        better = "write an address or a CIDR range, as 10.0.0.0/8 or 2001:db8::/32"
    raise UnitError(f"{shown(value)} is not a network", better)


def _webhook_url(value: object) -> str:
    text = value if isinstance(value, str) else ""
    scheme, found, rest = text.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if not found or scheme not in ("http", "https") or not host or not text.isprintable() or " " in text:
        raise UnitError("this is not the URL of a webhook", "write https://HOST/PATH")
    if "@" in host:
        raise UnitError("a URL with credentials would be shown to everybody", "sign with secret_file instead")
    try:
        units.split_host_port(
            host if re.search(r":[0-9]*\Z", host.rpartition("]")[2]) else f"{host}:443", lowest_port=1
        )
    except UnitError as error:
        raise UnitError(f"the URL's host is wrong: {error.problem}", error.hint) from None
    return text


def _certificate_host(value: object) -> str:
    if isinstance(value, str) and value.startswith("*."):
        return "*." + units.parse_host(value[2:])
    return _host(value)


CertificateHost = Annotated[
    str,
    Kind(
        "host", "without port, *.example.com for one label", _certificate_host, text_schema("[^/ ]+", "api.example.com")
    ),
]
Host = Annotated[str, Kind("host", "without port", _host, text_schema("[^/ ]+", "api.example.com"))]
Network = Annotated[str, Kind("network", "CIDR", _network, text_schema("[0-9a-fA-F.:]+(/[0-9]+)?", "10.0.0.0/8"))]
WebhookUrl = Annotated[
    str, Kind("URL", "https://HOST/PATH", _webhook_url, text_schema("https?://.+", "https://alerts.example.com/hook"))
]
