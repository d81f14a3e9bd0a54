"""From the schema's values to the frozen policies of every stage; nothing is judged here, only translated."""

from __future__ import annotations

import os
from dataclasses import replace

from sidecar.config.policies import (
    AccessLogPolicy,
    AdminPolicy,
    Compiled,
    DownstreamPolicy,
    DrainPolicy,
    EjectionPolicy,
    HealthPolicy,
    Match,
    ProxyPolicy,
    ReceiverPolicy,
    RetryPolicy,
    RouteRule,
    SloPolicy,
    StaticConfig,
    StorePolicy,
    Token,
    UpstreamPolicy,
)
from sidecar.config.schema import Config
from sidecar.config.sections import (
    BreakerSection,
    BucketSection,
    ConcurrencySection,
    LimitSection,
    MatchSection,
    PerClientSection,
    RouteSection,
    SloSection,
    burst_of,
)
from sidecar.config.tls import TlsSection
from sidecar.config.tls_policies import ClientCertificates, NamedCertificate, TlsPolicy, UpstreamTlsPolicy
from sidecar.config.upstreams import EjectionSection, HealthSection
from sidecar.decide.policies import ListenPolicy, RespondPolicy, Rung
from sidecar.detect.policies import DetectPolicy, Objective
from sidecar.facts import Mode
from sidecar.guard.policies import (
    BreakerPolicy,
    BucketPolicy,
    ConcurrencyPolicy,
    GuardPolicy,
    LimitMode,
    LimitPolicy,
    RoutePolicy,
)

DEFAULT_ROUTE = RouteSection(name="default", match=MatchSection(path="/**"))
"""What takes every request of a config without routes."""


def compile_config(config: Config) -> Compiled:
    """Return what *config* tells each stage. A global `mode: observe` lowers every control's own mode to it."""
    routes = config.routes or [DEFAULT_ROUTE]
    return Compiled(
        static=_static(config),
        admin=AdminPolicy(
            tuple(Token(each.name, each.role.value, each.sha256) for each in config.admin.tokens),
            config.admin.insecure,
            _tls(config.admin.tls) if config.admin.tls else None,
            tuple(config.admin.hosts),
        ),
        mode=config.mode,
        proxy=_proxy(config, tuple(_rule(route) for route in routes)),
        guard=_guard(config, routes),
        detect=_detect(config),
        respond=_respond(config),
        drain=DrainPolicy(config.drain.delay, config.drain.grace),
        receivers=tuple(_receiver(config)),
        store=StorePolicy(config.store.retention),
        access_log=AccessLogPolicy(config.access_log.format, config.access_log.sample),
        listen=_listen(config),
    )


def keep_admin(version: Compiled, file: Compiled) -> Compiled:
    """Return *version* with the admin section of *file*: a revoked token stays revoked whatever is applied."""
    return replace(version, admin=file.admin, static=replace(version.static, admin=file.static.admin))


def cores() -> int:
    """Return how many cores this process may use: what `workers: auto` means."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _static(config: Config) -> StaticConfig:
    workers = config.workers or cores()
    return StaticConfig(
        config.listen, config.observe, config.admin.listen, workers, config.state, config.access_log.path
    )


def _proxy(config: Config, rules: tuple[RouteRule, ...]) -> ProxyPolicy:
    down = config.downstream
    return ProxyPolicy(
        routes=rules,
        upstream=_upstream(config),
        downstream=DownstreamPolicy(
            down.head_timeout, down.idle_timeout, down.body_timeout, down.max_connections, down.tunnel_timeout
        ),
        trusted=tuple(config.trust.proxies),
        explain=config.explain.value,
        ratelimit_headers=config.ratelimit_headers,
        tracing=config.traceparent,
        end_tunnels=config.respond.end_tunnels,
        tls=_tls(config.tls) if config.tls else None,
    )


def _upstream(config: Config) -> UpstreamPolicy:
    up = config.upstream
    retries = RetryPolicy(up.retries.attempts, up.retries.budget, up.retries.on_status or frozenset())
    return UpstreamPolicy(
        tuple(up.endpoints),
        up.connect_timeout,
        up.response_timeout,
        up.idle_timeout,
        up.pool,
        retries,
        _ejection(up.ejection, config.mode),
        _health(up.health) if up.health else None,
        up.slow_start,
        up.resolve,
        UpstreamTlsPolicy(up.tls.ca or "", up.tls.certificate or "", up.tls.key or "", up.tls.server_name or ""),
    )


def _tls(section: TlsSection) -> TlsPolicy:
    asked = section.client_certificates or (
        ClientCertificates.REQUIRED if section.client_ca else ClientCertificates.OFF
    )
    return TlsPolicy(
        section.certificate,
        section.key,
        section.client_ca or "",
        asked,
        tuple(NamedCertificate(tuple(each.hosts), each.certificate, each.key) for each in section.sni),
    )


def _ejection(section: EjectionSection, ceiling: Mode) -> EjectionPolicy:
    return EjectionPolicy(
        _lowered(section.mode, ceiling),
        section.consecutive,
        section.error_ratio,
        section.min_requests,
        section.window,
        section.base,
        section.max,
        section.max_ejected,
    )


def _health(section: HealthSection) -> HealthPolicy:
    return HealthPolicy(section.path, section.interval, section.timeout, section.unhealthy, section.healthy)


def _rule(route: RouteSection) -> RouteRule:
    per_client = route.limit.per_client if route.limit else None
    return RouteRule(
        name=route.name,
        match=Match(route.match.path, tuple(route.match.methods), tuple(route.match.hosts)),
        client_key=(per_client.key if per_client else None) or route.client_key,
        response_timeout_s=route.response_timeout,
        max_body_bytes=route.max_body,
        failure_statuses=route.failure_statuses,
        slo=_slo(route.slo) if route.slo else None,
        upgrades=tuple(route.upgrade),
    )


def _slo(slo: SloSection) -> SloPolicy:
    latency = slo.latency
    return SloPolicy(slo.availability, latency.quantile if latency else None, latency.under if latency else None)


def _guard(config: Config, routes: list[RouteSection]) -> GuardPolicy:
    service = config.service
    return GuardPolicy(
        routes={route.name: _route_guards(route, config.mode) for route in routes},
        limit=_service_limit(service.limit, config.mode) if service.limit else None,
        concurrency=_concurrency(service.concurrency, config.mode) if service.concurrency else None,
        mode=config.mode,
        rearrivals=_lowered(service.rearrivals, config.mode),
        workers=config.workers or cores(),
    )


def _route_guards(route: RouteSection, ceiling: Mode) -> RoutePolicy:
    return RoutePolicy(
        route.name,
        limit=_limit(route.limit, ceiling) if route.limit else None,
        concurrency=_concurrency(route.concurrency, ceiling) if route.concurrency else None,
        breaker=_breaker(route.breaker, ceiling) if route.breaker else None,
        priority=route.priority,
    )


def _lowered(mode: Mode, ceiling: Mode) -> Mode:
    return Mode.OBSERVE if mode is Mode.ENFORCE and ceiling is Mode.OBSERVE else mode


def _lowered_limit(mode: LimitMode, ceiling: Mode) -> LimitMode:
    return LimitMode.OBSERVE if mode is not LimitMode.OFF and ceiling is Mode.OBSERVE else mode


def _bucket(section: BucketSection | LimitSection | PerClientSection) -> BucketPolicy | None:
    burst = burst_of(section)
    return None if section.rate is None or burst is None else BucketPolicy(section.rate, burst)


def _service_limit(section: BucketSection, ceiling: Mode) -> LimitPolicy:
    return LimitPolicy(_bucket(section), mode=_lowered_limit(section.mode, ceiling))


def _limit(section: LimitSection, ceiling: Mode) -> LimitPolicy:
    mode = _lowered_limit(section.mode, ceiling)
    keyed = section.per_client
    return LimitPolicy(
        bucket=_bucket(section),
        per_client=_bucket(keyed) if keyed is not None else None,
        max_keys=keyed.max_keys if keyed is not None else LimitPolicy().max_keys,
        mode=mode,
        cost=section.cost,
        max_wait_s=section.max_wait,
        max_queue=section.max_queue,
    )


def _concurrency(section: ConcurrencySection, ceiling: Mode) -> ConcurrencyPolicy:
    least, most = section.bounds
    return ConcurrencyPolicy(most, _lowered(section.mode, ceiling), least)


def _breaker(section: BreakerSection, ceiling: Mode) -> BreakerPolicy:
    return BreakerPolicy(
        window_s=section.window,
        min_requests=section.min_requests,
        error_ratio=section.error_ratio,
        consecutive=section.consecutive,
        slow_s=section.slow,
        slow_ratio=section.slow_ratio,
        open_s=section.open,
        max_open_s=section.max_open,
        probes=section.probes,
        probe_timeout_s=section.probe_timeout,
        close_successes=section.close_successes,
        close_window=section.close_window,
        reopen_failures=section.reopen_failures,
        ramp=section.ramp.steps,
        ramp_step_s=section.ramp.hold,
        mode=_lowered(section.mode, ceiling),
    )


def _detect(config: Config) -> DetectPolicy:
    detect = config.detect
    mode = _lowered(detect.mode, config.mode)
    allowed = {
        route.name: round(1 - route.slo.availability, 9)
        for route in config.routes
        if route.slo and route.slo.availability is not None
    }
    return DetectPolicy(
        mode,
        detect.sensitivity,
        detect.min_requests,
        detect.warmup,
        detect.clear_after,
        slo_error_ratio=min(allowed.values(), default=DetectPolicy().slo_error_ratio),
        sensitivities={r.name: r.detect.sensitivity for r in config.routes if r.detect.sensitivity is not None},
        slo_error_ratios=allowed,
        objectives={route.name: _objective(route.slo) for route in config.routes if route.slo},
    )


def _listen(config: Config) -> ListenPolicy:
    routes = {
        (route.name, detector): mode
        for route in config.routes
        for detector, mode in route.detect.detectors.modes().items()
    }
    return ListenPolicy(config.detect.detectors.modes(), routes)


def _objective(slo: SloSection) -> Objective:
    latency = slo.latency
    bad = round(1 - slo.availability, 9) if slo.availability is not None else 0.0
    if latency is None:
        return Objective(bad)
    return Objective(bad, round(1 - latency.quantile, 9), latency.under)


def _respond(config: Config) -> RespondPolicy:
    respond = config.respond
    return RespondPolicy(
        mode=_lowered(respond.mode, config.mode),
        action=respond.action,
        share_ratio=respond.share,
        max_refused_ratio=respond.max_refused,
        lease_s=respond.lease,
        ramp=respond.ramp.steps,
        ramp_hold_s=respond.ramp.hold,
        ladder=tuple(Rung(rung.after, rung.do) for rung in respond.if_unanswered),
        rollback=respond.rollback,
        suspect_window_s=config.config.suspect_window,
        clear_after_s=config.detect.clear_after,
        min_requests=config.detect.min_requests,
    )


def _receiver(config: Config) -> list[ReceiverPolicy]:
    return [
        ReceiverPolicy(each.name or each.type.value, each.type.value, each.url or "", each.secret_file or "")
        for each in config.notify
    ]
