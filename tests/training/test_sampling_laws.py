"""Order and random numbers follow from the seed and from positions alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anamorph.training.sampling import Sampler, share_of, spread

counts = st.integers(1, 40)


@given(count=counts, batch=st.integers(1, 12), epoch=st.integers(0, 5))
def test_an_epoch_is_one_pass_over_all_items(count: int, batch: int, epoch: int) -> None:
    sampler = Sampler(count, batch, seed=3)
    steps = [sampler.items(sampler.positions(epoch * sampler.steps + step)) for step in range(sampler.steps)]
    assert sorted(item for items in steps for item in items) == list(range(count))
    assert [len(items) for items in steps[:-1]] == [batch] * (sampler.steps - 1)
    assert 1 <= len(steps[-1]) <= batch


@given(count=counts, batch=st.integers(1, 12), per_epoch=st.integers(1, 9))
def test_short_epochs_share_a_pass_without_repetition(count: int, batch: int, per_epoch: int) -> None:
    sampler = Sampler(count, batch, per_epoch, seed=3)
    assert sampler.steps == per_epoch
    stream = [item for step in range(3 * count) for item in sampler.items(sampler.positions(step))]
    for first in range(0, len(stream) - count, count):
        assert sorted(stream[first : first + count]) == list(range(count))


@given(size=st.integers(0, 30), processes=st.integers(1, 8), first=st.integers(0, 1000))
def test_shares_of_a_batch_are_the_batch(size: int, processes: int, first: int) -> None:
    positions = range(first, first + size)
    shares = [share_of(positions, process, processes) for process in range(processes)]
    assert [position for share in shares for position in share] == list(positions)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(count=counts, batch=st.integers(1, 12), extra=counts, data=st.data())
def test_every_pass_has_all_items_and_the_next_of_the_extra_ones(
    count: int, batch: int, extra: int, data: st.DataObject
) -> None:
    drawn = data.draw(st.integers(1, extra))
    sampler = Sampler(count, batch, seed=3, extra=extra, drawn=drawn)
    assert sampler.steps == -(-(count + drawn) // batch)
    times = dict.fromkeys(range(count, count + extra), 0)
    for epoch in range(5):
        steps = range(epoch * sampler.steps, (epoch + 1) * sampler.steps)
        items = [item for step in steps for item in sampler.items(sampler.positions(step))]
        assert sorted(item for item in items if item < count) == list(range(count))
        chosen = [item for item in items if item >= count]
        assert len(chosen) == len(set(chosen)) == drawn
        for item in chosen:
            times[item] += 1
        assert max(times.values()) - min(times.values()) <= 1  # all have had their turn before one comes again


def test_extra_items_are_mixed_with_the_others_and_differ_with_the_seed() -> None:
    passes = [Sampler(20, 40, seed=seed, extra=100, drawn=20).items(range(40)) for seed in (0, 0, 1)]
    assert passes[0] == passes[1]
    assert {item for item in passes[0] if item >= 20} != {item for item in passes[2] if item >= 20}
    assert 5 < sum(item >= 20 for item in passes[0][:20]) < 15


def test_the_order_and_the_seeds_themselves() -> None:
    """Another version must not change them, so that a training goes on where an older one stopped."""
    sampler = Sampler(7, 3, seed=5)
    assert [sampler.items(sampler.positions(step)) for step in range(4)] == [[1, 4, 2], [3, 6, 5], [0], [4, 0, 2]]
    assert sampler.item_seeds(range(3)) == [3796490668, 3269189123, 4078058680]
    assert [sampler.step_seed(4, process) for process in (0, 1)] == [1998799492, 3509686834]
    short = Sampler(5, 2, 4, seed=1)
    assert [short.items(short.positions(step)) for step in range(4)] == [[4, 0], [1, 2], [3, 2], [4, 0]]


def test_another_seed_is_another_order_and_the_same_one_is_not() -> None:
    orders = [Sampler(30, 30, seed=seed).items(range(30)) for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert Sampler(30, 30).items(range(30)) != Sampler(30, 30).items(range(30, 60))


def test_random_numbers_never_coincide() -> None:
    sampler = Sampler(10, 2, seed=1)
    drawn = sampler.item_seeds(range(500)) + [sampler.step_seed(step, rank) for step in range(250) for rank in (0, 1)]
    assert len(set(drawn)) == len(drawn)
    assert sampler.item_seeds([7]) == sampler.item_seeds(range(500))[7:8]


@given(count=st.integers(0, 200), most=st.integers(1, 60))
def test_spread_takes_distinct_items_from_everywhere(count: int, most: int) -> None:
    chosen = spread(count, most)
    assert len(set(chosen)) == len(chosen) == min(count, most)
    assert all(0 <= item < count for item in chosen)
    assert not chosen or max(chosen) >= count - -(-count // len(chosen))
