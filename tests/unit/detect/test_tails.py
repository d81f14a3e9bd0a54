"""Streaming upper tails: rarities that mean what they say, in constant memory."""

import json
from array import array
from base64 import b64decode, b64encode
from random import Random

import pytest

from sidecar.detect.tails import BINS, WARMUP, Tails


def fed(values: list[float]) -> Tails:
    tails = Tails(1)
    for value in values:
        tails.observe([value])
    return tails


def lognormal(seed: int, count: int) -> list[float]:
    rng = Random(seed)
    return [rng.lognormvariate(0, 0.5) for _ in range(count)]


def test_nothing_is_rare_during_the_warmup() -> None:
    """
    The first 144 values have rarity 0, whatever they are.
    """
    tails = Tails(1)

    assert all(tails.observe([10.0**i])[0] == 0.0 for i in range(WARMUP))


def test_one_value_in_a_hundred_is_above_the_level() -> None:
    """
    On a steady stream about 1 % of the values have a rarity, which is then at least 2.
    """
    tails = fed(lognormal(1, 4000))

    rarities = [tails.observe([value])[0] for value in lognormal(2, 4000)]

    assert 20 <= sum(rarity > 0 for rarity in rarities) <= 80
    assert all(rarity == 0 or rarity >= 2 for rarity in rarities)


def test_a_higher_value_is_rarer() -> None:
    """
    Rarity grows with the value, by the same amount for each doubling.
    """
    state = fed(lognormal(3, 4000)).snapshot()

    def rarity(value: float) -> float:
        tails = Tails(1)
        tails.restore(state)
        return tails.observe([value])[0]

    assert rarity(8.0) < rarity(16.0) < rarity(32.0)
    assert rarity(32.0) - rarity(16.0) == pytest.approx(rarity(16.0) - rarity(8.0))


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6])
def test_rarity_knows_no_unit(unit: float) -> None:
    """
    The same stream in another unit has nearly the same rarities (bins fall differently).
    """
    own, other = fed(lognormal(4, 2000)), fed([value * unit for value in lognormal(4, 2000)])

    assert other.observe([9.0 * unit])[0] == pytest.approx(own.observe([9.0])[0], rel=0.1)


def test_the_level_follows_a_stream_that_moves_by_orders_of_magnitude() -> None:
    """
    After a lasting change by 1,000 in either direction 1 % is above the level again.
    """
    for factor in (1e3, 1e-3):
        tails = fed(lognormal(5, 3000))
        for value in lognormal(6, 30_000):
            tails.observe([value * factor])

        above = sum(tails.observe([value * factor])[0] > 0 for value in lognormal(7, 3000))

        assert 10 <= above <= 75


def test_the_first_value_of_a_silent_stream_is_very_rare() -> None:
    """
    A stream that was always 0 finds any other value rare.
    """
    assert fed([0.0] * 1000).observe([1.0])[0] > 5


def test_a_snapshot_goes_on_as_if_nothing_happened() -> None:
    """
    Snapshot, JSON and restore give the same future.
    """
    first = fed(lognormal(8, 1000))
    document = json.loads(json.dumps(first.snapshot()))
    second = Tails(1)
    second.restore(document)

    future = lognormal(9, 500)

    ours, theirs = ([tails.observe([value])[0] for value in future] for tails in (first, second))
    assert theirs == pytest.approx(ours, rel=0.02)


def test_a_document_of_another_shape_is_refused() -> None:
    """
    Restoring two streams into one is a ValueError.
    """
    with pytest.raises(ValueError, match="32 bins for 2 streams"):
        Tails(2).restore(Tails(1).snapshot())


def test_a_document_with_wider_bins_goes_on() -> None:
    """
    An older release's bins of 16 bits, with 64 units a value, become today's: the same future.
    """
    first, second = fed(lognormal(10, 3000)), Tails(1)
    document = first.snapshot()
    bins = array("H", [round(held * 64 / 3) for held in b64decode(document["bins"])])
    wider = {"bins": b64encode(bins.tobytes()).decode(), "total": document["total"] * 64 / 3}
    second.restore({**document, **wider, "weight": document["weight"] * 64 / 3})

    assert second.snapshot() == {**document, "total": pytest.approx(document["total"])}


@pytest.mark.parametrize(
    ("held", "left"),
    [
        (dict.fromkeys(range(BINS), 1), dict.fromkeys(range(1, BINS, 2), 1)),
        ({5: 1, 20: 1}, {20: 1}),
        ({5: 1, 7: 4, 20: 2, 25: 3}, {7: 2, 20: 1, 25: 2}),
        ({5: 4, 20: 1}, {5: 2}),
    ],
    ids=["every bin", "two units", "across others", "the highest"],
)
def test_halving_carries_single_units_upwards(held: dict[int, int], left: dict[int, int]) -> None:
    """
    Two units that halves leave over become one in the place of the higher, and of a stream at most one unit is lost.
    """
    bins = bytes(held.get(i, 0) for i in range(BINS))
    tails = Tails(2)
    calm = fed([1.0] * 203).snapshot()
    # After 203 values no level is due; the next one, 0, goes into the lowest bin with 6 units.
    doubled = {name: calm[name] * 2 for name in ("anchors", "tops", "levels", "slopes")}
    tails.restore({**calm, **doubled, "bins": b64encode(bins + bins).decode(), "weight": 5.9999})

    tails.observe([0.0, 0.0])

    now = b64decode(tails.snapshot()["bins"])
    for stream in (now[:BINS], now[BINS:]):
        assert {i: units for i, units in enumerate(stream) if i and units} == left
        assert stream[0] == (6 + bins[0]) // 2


def test_a_packed_memory_is_the_same() -> None:
    """
    Packed and unpacked, the tails have the memory they had, and the record's length says how many streams there are.
    """
    first, second = fed(lognormal(12, 1000)), Tails(1)
    second.unpack(first.pack())

    assert second.snapshot() == first.snapshot()
    assert len(first.pack()) == len(Tails(1).pack())
