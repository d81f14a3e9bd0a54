"""The schema's values as policies."""

from __future__ import annotations

from sidecar.config.compile import cores
from sidecar.config.load import load
from sidecar.config.policies import Compiled, Match, ReceiverPolicy, RouteRule, SloPolicy
from sidecar.decide.policies import LadderStep, RespondPolicy, Response, RollbackMode, Rung
from sidecar.detect.policies import DetectPolicy, Objective, Sensitivity
from sidecar.facts import Mode
from sidecar.guard.policies import (
    BreakerPolicy,
    BucketPolicy,
    ConcurrencyPolicy,
    LimitMode,
    LimitPolicy,
    Priority,
    RoutePolicy,
)


def _load(text: str) -> Compiled:
    return load("upstream: {endpoints: [http://127.0.0.1:9000]}\n" + text, name="f", environ={}, flags={})


ROUTE = """
routes:
- name: checkout
  match: {path: /api/checkout/**, methods: [POST], hosts: [Shop.example]}
  priority: high
  limit: {rate: 100/s, burst: 200, cost: 2.5, mode: shape, max_wait: 3s, max_queue: 7, per_client: {rate: 10/s, key: "header:X-Api-Key", max_keys: 5000}}
  concurrency: {max: 64, mode: observe}
  breaker: {window: 20s, min_requests: 30, error_ratio: 40%, consecutive: 0, slow: 1s, slow_ratio: 70%, open: 6s,
            max_open: 60s, probes: 4, probe_timeout: 9s, close_successes: 3, close_window: 5, reopen_failures: 2,
            ramp: {steps: [50%, 100%], hold: 3s}, mode: observe}
  slo: {availability: 99.9%, latency: {quantile: 0.99, under: 300ms}}
  response_timeout: 5s
  max_body: 64KiB
  failure_statuses: [500, 503-504]
"""


def test_every_key_of_a_route_reaches_its_policy() -> None:
    """
    A route with every key set differs from the defaults in every field of its policies.
    """
    compiled = _load(ROUTE)
    rule = RouteRule(
        "checkout", Match("/api/checkout/**", ("POST",), ("shop.example",)), "header:x-api-key", 5.0, 65536,
        frozenset({500, 503, 504}), SloPolicy(0.999, 0.99, 0.3),
    )  # fmt: skip
    breaker = BreakerPolicy(
        20.0, 30, 0.4, 0, 1.0, 0.7, 6.0, 60.0, 4, 9.0, 3, 5, 2, (0.5, 1.0), 3.0, Mode.OBSERVE
    )  # fmt: skip
    limit = LimitPolicy(BucketPolicy(100.0, 200.0), BucketPolicy(10.0, 10.0), 5000, LimitMode.SHAPE, 2.5, 3.0, 7)
    assert (rule,) == compiled.proxy.routes
    assert {
        "checkout": RoutePolicy("checkout", limit, ConcurrencyPolicy(64, Mode.OBSERVE), breaker, Priority.HIGH)
    } == compiled.guard.routes


def test_a_burst_defaults_to_one_second_and_never_below_one() -> None:
    """
    Without `burst` a bucket holds one second of its rate, and at least one request.
    """
    guard = _load("routes: [{name: a, limit: {rate: 6/m, per_client: {rate: 30/s}}}]").guard
    assert LimitPolicy(BucketPolicy(0.1, 1.0), BucketPolicy(30.0, 30.0)) == guard.routes["a"].limit


def test_adaptive_concurrency_has_bounds_that_need_not_be_written() -> None:
    """
    From 4 to 256, or as far as the bound that is written allows.
    """
    routes = "".join(
        f"\n- {{name: r{n}, match: {{path: /{n}}}, concurrency: {{adaptive: true{keys}}}}}"
        for n, keys in enumerate(("", ", max: 2", ", min: 300", ", min: 8, max: 90, mode: observe"))
    )
    found = [route.concurrency for route in _load(f"routes:{routes}").guard.routes.values()]
    assert found == [
        ConcurrencyPolicy(256, min_in_flight=4),
        ConcurrencyPolicy(2, min_in_flight=2),
        ConcurrencyPolicy(300, min_in_flight=300),
        ConcurrencyPolicy(90, Mode.OBSERVE, 8),
    ]


def test_the_client_key_comes_from_the_route_or_its_limit() -> None:
    """
    `client_key` and `per_client.key` say the same thing; without both a client is its address.
    """
    rules = _load(
        "routes:\n- {name: a, match: {path: /a}, client_key: 'header:k'}\n"
        "- {name: b, match: {path: /b}, limit: {per_client: {rate: 1/s, key: 'header:k'}}}\n- {name: c}\n"
    ).proxy.routes
    assert [rule.client_key for rule in rules] == ["header:k", "header:k", "address"]


def test_a_global_observe_lowers_every_control() -> None:
    """
    Under `mode: observe` nothing enforces, whatever its own mode says; what is off stays off.
    """
    text = (
        "mode: observe\nservice: {limit: {rate: 1/s, mode: enforce}, concurrency: {max: 1}}\n"
        "routes: [{name: a, limit: {rate: 1/s, mode: 'off'}, breaker: {mode: enforce}}]\nrespond: {mode: enforce}\n"
    )
    compiled = _load(text)
    guard, route = compiled.guard, compiled.guard.routes["a"]
    assert guard.limit is not None
    assert guard.concurrency is not None
    assert route.limit is not None
    assert route.breaker is not None
    assert (guard.limit.mode, guard.concurrency.mode) == (LimitMode.OBSERVE, Mode.OBSERVE)
    assert (route.limit.mode, route.breaker.mode) == (LimitMode.OFF, Mode.OBSERVE)
    assert (compiled.mode, guard.mode, compiled.respond.mode, compiled.detect.mode) == (Mode.OBSERVE,) * 4


def test_detect_and_respond_reach_their_policies() -> None:
    """
    Every key of the deciding stages arrives, `config.suspect_window` among them.
    """
    compiled = _load(
        "detect: {mode: observe, sensitivity: high, min_requests: 5, warmup: 9s, clear_after: 8s}\n"
        "respond: {mode: observe, action: isolate, share: 5%, max_refused: 50%, lease: 1m, rollback: auto,\n"
        "          ramp: {steps: [10%, 100%], hold: 2s}, if_unanswered: [{after: 1m, do: release}]}\n"
        "config: {suspect_window: 1m}\n"
    )
    assert DetectPolicy(Mode.OBSERVE, Sensitivity.HIGH, 5, 9.0, 8.0) == compiled.detect
    assert compiled.respond == RespondPolicy(
        Mode.OBSERVE, Response.ISOLATE, 0.05, 0.5, 60.0, (0.1, 1.0), 2.0, (Rung(60.0, LadderStep.RELEASE),),
        RollbackMode.AUTO, 60.0, 8.0, 5,
    )  # fmt: skip


def test_the_objectives_say_which_shift_may_become_normal() -> None:
    """
    Each route's own availability counts for it, the strictest for all together and for routes without one.
    """
    detect = _load(
        "routes:\n"
        "  - {name: strict, match: {path: /a}, slo: {availability: 99.95%}}\n"
        "  - {name: lax, match: {path: /b}, slo: {availability: 95%}}\n"
        "  - {name: default, match: {path: /**}}\n"
    ).detect
    allowed = [detect.of(name).slo_error_ratio for name in ("strict", "lax", "default")]

    assert allowed == [0.0005, 0.05, 0.0005]
    assert detect.slo_error_ratio == 0.0005
    assert detect.of("strict").objective == Objective(bad_ratio=0.0005)
    assert detect.of("default").objective is None


def test_the_rest_of_the_data_plane_reaches_its_policy() -> None:
    """
    Timeouts, trust, explain and the header switches arrive in the proxy's policy.
    """
    proxy = _load(
        "downstream: {head_timeout: 1s, idle_timeout: 2s, body_timeout: 3s, max_connections: 4}\n"
        "trust: {proxies: [10.0.0.0/8]}\nexplain: none\nratelimit_headers: false\ntraceparent: false\n"
    ).proxy
    down = proxy.downstream
    assert (down.head_timeout_s, down.idle_timeout_s, down.body_timeout_s, down.max_connections) == (1.0, 2.0, 3.0, 4)
    assert (
        proxy.trusted, proxy.explain, proxy.ratelimit_headers, proxy.tracing,
    ) == (("10.0.0.0/8",), "none", False, False)  # fmt: skip


def test_receivers_are_named_by_their_type_when_nobody_named_them() -> None:
    """
    A log receiver without name is `log`; a webhook keeps url and secret's file.
    """
    text = "notify: [{type: log}, {type: webhook, name: oncall, url: 'https://a.example', secret_file: /s}]"
    assert (
        ReceiverPolicy("log", "log"),
        ReceiverPolicy("oncall", "webhook", "https://a.example", "/s"),
    ) == _load(text).receivers


def test_auto_is_one_worker_for_each_core() -> None:
    """
    `workers: auto` resolves alike for the supervisor and for the shares of the limits.
    """
    compiled = _load("workers: auto")
    assert (cores(), cores()) == (compiled.static.workers, compiled.guard.workers)
