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
