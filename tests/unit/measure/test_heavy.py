from __future__ import annotations

from sidecar.measure.heavy import HALF_LIFE_S, HeavyClients


def count(table: HeavyClients, key: str, times: int = 1) -> None:
    """Count *times* requests of *key* as `RouteCounters.end` does."""
    for _ in range(times):
        entry = table.entries.get(key)
        if entry is None:
            entry = table.enter(key)
        entry[4] += 1
        entry[1] += 1


def test_counts_are_exact_while_there_is_room() -> None:
    """
    Up to its capacity the table is a plain counter.
    """
    table = HeavyClients(3)
    for key, times in (("a", 5), ("b", 2), ("c", 1)):
        count(table, key, times)
    assert table.rows() == [["a", 1, 5, 0, 0, 0], ["b", 2, 2, 0, 0, 0], ["c", 3, 1, 0, 0, 0]]


def test_the_lightest_makes_room() -> None:
    """
    An unknown client takes the place of the lightest one.
    """
    table = HeavyClients(2)
    count(table, "a", 5)
    count(table, "b", 2)
    count(table, "c")
    assert sorted(table.entries) == ["a", "c"]


def test_a_heavy_client_stays_in_a_flood_of_random_keys() -> None:
    """
    Whoever has more than 1/capacity of the traffic is in the table, with an exact count since it came.
    """
    table = HeavyClients(64)
    for n in range(20_000):
        count(table, f"random-{n}")
        if n % 20 == 0:
            count(table, "abuser")
    assert len(table.entries) == 64
    assert table.entries["abuser"][1] == 1000


def test_a_second_stay_is_told_from_the_first() -> None:
    """
    `born` differs, so nobody subtracts the counts of one stay from those of another.
    """
    table = HeavyClients(1)
    count(table, "a")
    first = table.rows()
    count(table, "b")
    count(table, "a")
    assert first == [["a", 1, 1, 0, 0, 0]]
    assert table.rows() == [["a", 3, 1, 0, 0, 0]]


def test_yesterdays_heavy_client_makes_room() -> None:
    """
    Weights halve, counts do not: who went silent is evicted before a lighter one of today.
    """
    table = HeavyClients(2)
    table.age(0.0)
    count(table, "old", 1000)
    for step in range(1, 12):
        table.age(step * HALF_LIFE_S)
    assert table.entries["old"][1] == 1000
    count(table, "new", 5)
    count(table, "newer", 5)
    assert sorted(table.entries) == ["new", "newer"]


def test_ageing_waits_for_a_half_life() -> None:
    """
    A call each second halves once in thirty seconds.
    """
    table = HeavyClients(2)
    count(table, "a", 64)
    for second in range(31):
        table.age(float(second))
    assert table.entries["a"][4] == 32


def test_repr_shows_how_full_it_is() -> None:
    """
    It says how many of how many.
    """
    assert repr(HeavyClients(8)) == "<HeavyClients 0/8>"
