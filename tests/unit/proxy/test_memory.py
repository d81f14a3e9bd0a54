"""What is remembered of messages: what comes again, never more than the bound, and exactly what was read."""

from __future__ import annotations

from sidecar.proxy.framing import RequestHead, parse_request_head
from sidecar.proxy.memory import Memory
from sidecar.proxy.route import path_template


def met_and_kept(memory: Memory[int, str], key: int) -> bool:
    """Do with *key* what every reader does; tell whether it is kept then."""
    if key not in memory.kept and memory.again(key):
        memory.keep(key, f"value {key}")
    return key in memory.kept


def test_a_value_is_kept_from_the_second_time_on() -> None:
    """
    The first time leaves a mark, the second one a value.
    """
    memory: Memory[int, str] = Memory(8)
    assert [met_and_kept(memory, 1) for _ in range(3)] == [False, True, True]
    assert memory.kept == {1: "value 1"}


def test_strangers_never_drive_out_the_regulars() -> None:
    """
    A flood of keys that come once takes no place, however long it is.
    """
    memory: Memory[int, str] = Memory(8)
    assert [met_and_kept(memory, 1) for _ in range(2)] == [False, True]
    assert not any(met_and_kept(memory, key) for key in range(100, 10_000))
    assert met_and_kept(memory, 1)


def test_it_is_bounded_whatever_comes() -> None:
    """
    Neither values nor marks exceed their bounds when every key comes twice.
    """
    memory: Memory[int, str] = Memory(8)
    for key in range(1000):
        met_and_kept(memory, key)
        met_and_kept(memory, key)
        assert len(memory.kept) <= 8
        assert repr(memory).endswith("met once>")
        assert int(repr(memory).split(", ")[1].split()[0]) <= 32


def test_a_head_reads_the_same_when_it_is_remembered() -> None:
    """
    The first, the second and the tenth reading of one head are equal, also beside heads that differ in one byte only.
    """
    for number in range(5):
        raw = b"GET /memory/%d?q=1 HTTP/1.1\r\nHost: memory\r\nX-Number: %d\r\n\r\n" % (number, number)
        heads = [parse_request_head(raw) for _ in range(10)]
        for head in heads:
            assert isinstance(head, RequestHead)
            assert (head.path, head.target, head.named[b"x-number"]) == (
                f"/memory/{number}", b"/memory/%d?q=1" % number, b"%d" % number,
            )  # fmt: skip
        assert isinstance(heads[0], RequestHead)
        assert not heads[0].regular
        assert isinstance(heads[-1], RequestHead)
        assert heads[-1].regular
        assert path_template(f"/memory/{number}", True) == path_template(f"/memory/{number}") == "/memory/{id}"


def test_the_same_fields_on_two_versions_are_two_sections() -> None:
    """
    What is remembered of 1.1 is not said of 1.0: there the connection ends.
    """
    for _ in range(4):
        one = parse_request_head(b"GET / HTTP/1.1\r\nHost: versions\r\n\r\n")
        zero = parse_request_head(b"GET / HTTP/1.0\r\nHost: versions\r\n\r\n")
        assert isinstance(one, RequestHead)
        assert isinstance(zero, RequestHead)
        assert (one.keep_alive, zero.keep_alive) == (True, False)


def test_a_refused_head_stays_refused() -> None:
    """
    What the second parser refuses in a line is refused each time, whether its fields are known or not.
    """
    fields = b"Host: refused\r\n\r\n"
    for _ in range(4):
        assert isinstance(parse_request_head(b"GET /fine HTTP/1.1\r\n" + fields), RequestHead)
        assert not isinstance(parse_request_head(b"GET /not fine HTTP/1.1\r\n" + fields), RequestHead)
        assert not isinstance(parse_request_head(b"GET /fine HTTP/1.1\r\nHost : refused\r\n\r\n"), RequestHead)
