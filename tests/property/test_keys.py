from __future__ import annotations

import tracemalloc

from sidecar.guard.bucket import KeyedBuckets, Rate
from sidecar.guard.limit import Limits
from sidecar.guard.policies import BucketPolicy


def test_a_million_random_keys_stay_flat_and_the_abuser_limited() -> None:
    """
    1,000,000 random keys never hold more than `max_keys` entries, and the abuser among them gets its rate.
    """
    table, passed = KeyedBuckets(Rate(BucketPolicy(10.0, 20.0), 1), 1000, observed=False), 0
    limits = Limits(table, None, None)
    tracemalloc.start()
    for n in range(1000):
        limits.take(f"warm-{n}", 0.0)
    before, _ = tracemalloc.get_traced_memory()
    for n in range(50_000):
        limits.take(f"random-{n}", n / 25_000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for n in range(50_000, 1_000_000):
        limits.take(f"random-{n}", n / 25_000)
        if n % 100 == 0:
            passed += limits.take("abuser", n / 25_000) is None
    assert len(table) <= 1000
    assert len(table.tats) <= 1001
    assert after - before < 100_000
    assert passed <= 20 + 10 * 38 + 1
