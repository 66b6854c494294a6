"""Files are read at once and given out in order, few ahead of the one that is in use."""

import threading

import pytest

from krontime.data import read_ahead
from krontime.data.read_ahead import read_ahead as reading


@pytest.fixture
def cpus(monkeypatch):
    return lambda number: monkeypatch.setattr(read_ahead, "num_cpus", lambda: number)


def outcomes(items, read, num_bytes=0):
    for item, result in reading("reading", items, read, num_bytes=num_bytes):
        try:
            yield item, result()
        except ValueError as error:
            yield item, str(error)


def halved(item):
    if item % 3 == 2:
        raise ValueError(f"{item} is broken")
    return item / 2


@pytest.mark.parametrize("number", [1, 2, 5, 100])
def test_results_and_errors_come_in_order(number, cpus):
    cpus(number)
    expected = [(i, f"{i} is broken" if i % 3 == 2 else i / 2) for i in range(20)]
    assert list(outcomes(range(20), halved)) == expected
    assert list(outcomes([], halved)) == []


GIB = 2**30


@pytest.mark.parametrize(
    ("number", "num_bytes", "ahead"),
    [(1, 0, 0), (3, 0, 3), (100, 0, 8), (100, GIB // 2, 2), (100, GIB, 0), (100, 9 * GIB, 0), (100, None, 0)],
)
def test_few_are_read_ahead_of_the_one_in_use(number, num_bytes, ahead, cpus):
    cpus(number)
    begun = []
    for position, _ in enumerate(outcomes(range(30), begun.append, num_bytes)):
        assert len(begun) <= position + 1 + ahead


def test_several_are_read_at_once_where_that_is_wanted(cpus):
    cpus(2)
    both = threading.Barrier(2, timeout=10)
    assert [item for item, _ in outcomes(range(4), lambda _: both.wait())] == [0, 1, 2, 3]
    names = {name for _, name in outcomes(range(4), lambda _: threading.current_thread().name, num_bytes=None)}
    assert names == {threading.current_thread().name}


def test_nothing_more_is_read_once_nobody_wants_it(cpus):
    cpus(2)
    before, begun = set(threading.enumerate()), []
    results = outcomes(range(100), begun.append)
    next(results)
    results.close()
    assert len(begun) <= 3
    assert set(threading.enumerate()) == before
