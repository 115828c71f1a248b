"""The parameter server: exact sums, exact partition, bounded staleness, each gradient once."""

import asyncio

import numpy as np
import pytest

from nas_cluster.cluster.coordinator.snapshots import resplit
from nas_cluster.cluster.learners.parameter_server import ParameterServer, fresh_state
from nas_cluster.cluster.learners.partition import Layout, shard_slices
from nas_cluster.cluster.messages import Push, ShardEmpty
from nas_cluster.config import Topology
from nas_cluster.core.errors import ConfigError, RunStopped
from nas_cluster.strategies.ppo import PPO
from nas_cluster.strategies.random import Random


async def make_shard(synchronous=False, size=6, weights=None, strategy=None, **topology):
    strategy = strategy or Random()
    shard = ParameterServer(strategy, Topology(**topology), synchronous=synchronous)
    weights = np.zeros(size, np.float32) if weights is None else weights
    await shard.restore(fresh_state(weights, strategy, first_shard=True))
    return shard


def push(replica, number, base=0, gradient=None, size=6, rewards=(0.5,)):
    gradient = np.ones(size, np.float32) if gradient is None else gradient
    return Push(replica, number, base, gradient, ((0,),) * len(rewards), rewards)


def void(replica, number):
    return Push(replica, number, 0, None, (), ())


def only_gradient(state):
    """The gradient of a shard's first update, from Adam's first moment."""
    return state.arrays["first"] / np.float32(1 - Random().optimizer.beta1)


def test_an_empty_shard_refuses_to_serve():
    async def scenario():
        shard = ParameterServer(Random(), Topology(), synchronous=False)
        with pytest.raises(ShardEmpty):
            await shard.pull(0, 0)
        with pytest.raises(ShardEmpty):
            await shard.push(push(0, 0))

    asyncio.run(scenario())


@pytest.mark.parametrize("size,shards", [(10, 1), (10, 3), (7, 7), (3, 5), (0, 2), (20_293, 20)])
def test_slices_partition_the_vector_exactly(size, shards):
    slices = shard_slices(size, shards)
    assert len(slices) == shards
    covered = [i for part in slices for i in range(part.start, part.stop)]
    assert covered == list(range(size))
    lengths = [part.stop - part.start for part in slices]
    assert max(lengths) - min(lengths) <= 1


def test_layout_round_trip():
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.float32(7).reshape(()),
        "c": np.ones(4, np.float32),
    }
    layout = Layout.of(tensors)
    assert layout.size == 11
    back = Layout.from_json(layout.to_json()).unflatten(layout.flatten(tensors))
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


def test_a_synchronous_round_does_not_depend_on_the_order_of_arrival():
    gradients = [np.random.default_rng(i).normal(size=6).astype(np.float32) * 10**i for i in range(3)]

    async def arrive(order):
        shard = await make_shard(synchronous=True, controller_replicas=3)
        await asyncio.gather(*(shard.push(push(r, 0, gradient=gradients[r])) for r in order))
        return (await shard.pull(0, 1)).weights

    results = [asyncio.run(arrive(order)) for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0])]
    assert results[0].tobytes() == results[1].tobytes() == results[2].tobytes()
    assert not np.array_equal(results[0], np.zeros(6))


def test_a_synchronous_pull_waits_for_its_round():
    async def scenario():
        shard = await make_shard(synchronous=True, controller_replicas=2)
        early = asyncio.create_task(shard.pull(0, 1))
        first = asyncio.create_task(shard.push(push(0, 0)))
        await asyncio.sleep(0)
        assert not early.done()
        await shard.push(push(1, 0))
        await first
        assert (await early).version == 1

    asyncio.run(scenario())


def test_the_number_of_shards_does_not_change_a_bit():
    gradients = [np.random.default_rng(i).normal(size=(5, 23)).astype(np.float32) for i in range(2)]

    async def search(shards):
        weights = np.random.default_rng(9).normal(size=23).astype(np.float32)
        parts = shard_slices(23, shards)
        servers = [await make_shard(synchronous=True, controller_replicas=2, weights=weights[part]) for part in parts]
        for update in range(5):
            for server, part in zip(servers, parts, strict=True):
                await asyncio.gather(
                    *(server.push(push(r, update, gradient=gradients[r][update][part])) for r in range(2))
                )
        return np.concatenate([(await server.pull(0, 5)).weights for server in servers])

    results = {shards: asyncio.run(search(shards)).tobytes() for shards in (1, 2, 5, 23)}
    assert len(set(results.values())) == 1


def test_accumulate_applies_exactly_one_update_per_n_gradients():
    async def scenario():
        shard = await make_shard(accumulate=10, controller_replicas=1)
        for update in range(37):
            await shard.push(push(0, update))
        assert (await shard.pull(0, 37)).version == 37 // 10
        state = await shard.snapshot()
        assert state.meta["summed"] == 7
        assert np.allclose(state.arrays["sum"], 7)

    asyncio.run(scenario())


def test_a_repeated_push_changes_nothing_also_after_a_restart():
    async def scenario():
        shard = await make_shard(controller_replicas=2)
        await shard.push(push(0, 0))
        before = await shard.snapshot()
        assert (await shard.push(push(0, 0))).verdict == "duplicate"
        other = ParameterServer(Random(), Topology(controller_replicas=2), synchronous=False)
        await other.restore(before)
        assert (await other.push(push(0, 0))).verdict == "duplicate"
        assert np.array_equal((await other.pull(0, 1)).weights, before.arrays["weights"])
        assert (await other.push(push(1, 0, base=1))).verdict == "applied"

    asyncio.run(scenario())


def test_staleness_is_measured_and_old_gradients_are_dropped_or_down_weighted():
    async def scenario(how):
        shard = await make_shard(controller_replicas=2, max_staleness=1, stale_gradients=how)
        await shard.pull(1, 0)
        for update in range(3):
            await shard.pull(0, update)
            await shard.push(push(0, update, base=update))
        before = (await shard.snapshot()).arrays["weights"]
        receipt = await shard.push(push(1, 0, base=0))
        after = (await shard.snapshot()).arrays["weights"]
        return receipt, before, after

    receipt, before, after = asyncio.run(scenario("drop"))
    assert (receipt.verdict, receipt.staleness) == ("dropped", 3)
    assert np.array_equal(before, after)
    receipt, before, after = asyncio.run(scenario("down_weight"))
    assert (receipt.verdict, receipt.staleness) == ("down_weighted", 3)
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("replicas,bound,accumulate", [(2, 1, 1), (5, 4, 1), (5, 7, 1), (8, 2, 4)])
def test_waiting_keeps_the_bound_and_never_deadlocks(replicas, bound, accumulate):
    """Replicas of very different speeds: the bound holds for every gradient and all of them finish."""

    async def scenario():
        shard = await make_shard(controller_replicas=replicas, max_staleness=bound, accumulate=accumulate)
        seen = []

        async def replica(index):
            rng = np.random.default_rng(index)
            for update in range(20):
                pulled = await shard.pull(index, update)
                await asyncio.sleep(float(rng.exponential(0.0002 * (index + 1) ** 2)))
                seen.append((await shard.push(push(index, update, base=pulled.version))).staleness)

        await asyncio.wait_for(asyncio.gather(*(replica(i) for i in range(replicas))), 20)
        return seen

    seen = asyncio.run(scenario())
    assert len(seen) == 20 * replicas
    assert max(seen) <= bound


def test_halt_lets_every_waiter_go():
    async def scenario():
        shard = await make_shard(synchronous=True, controller_replicas=2)
        waiting = [asyncio.create_task(shard.push(push(0, 0))), asyncio.create_task(shard.pull(1, 1))]
        await asyncio.sleep(0)
        await shard.halt()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, RunStopped) for result in results)

    asyncio.run(scenario())


def test_synchronous_shards_can_all_give_an_older_version():
    async def scenario():
        shard = await make_shard(synchronous=True, controller_replicas=1, snapshot_every=2)
        weights = {}
        for update in range(5):
            await shard.push(push(0, update))
            weights[update + 1] = (await shard.snapshot()).arrays["weights"]
        assert await shard.versions() == [2, 4, 5]
        for version in (2, 4, 5):
            state = await shard.snapshot(version)
            assert state.version == version
            assert np.array_equal(state.arrays["weights"], weights[version])

    asyncio.run(scenario())


def test_resplitting_is_exact_or_refused():
    async def state_of(weights, updates):
        shard = await make_shard(weights=weights, controller_replicas=1)
        for update in range(updates):
            await shard.push(push(0, update, size=len(weights)))
        return await shard.snapshot()

    async def scenario():
        whole = np.arange(10, dtype=np.float32)
        states = [await state_of(whole[:5], 3), await state_of(whole[5:], 3)]
        third = resplit(states, 3)
        for name in ("weights", "first", "second"):
            joined = np.concatenate([s.arrays[name] for s in states])
            assert np.array_equal(np.concatenate([s.arrays[name] for s in third]), joined)
        uneven = [states[0], await state_of(whole[5:], 2)]
        assert resplit(uneven, 2) == uneven
        with pytest.raises(ConfigError, match="parameter_shards=2"):
            resplit(uneven, 3)

    asyncio.run(scenario())


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_gradient_weighs_as_much_as_the_minibatch_has_children_to_learn_from(synchronous):
    async def scenario():
        accumulate = {} if synchronous else {"accumulate": 2}
        shard = await make_shard(synchronous, controller_replicas=3, **accumulate)
        three, one = np.full(6, 1, np.float32), np.full(6, 5, np.float32)
        await asyncio.gather(
            shard.push(push(0, 0, gradient=three, rewards=(0.1, 0.2, 0.3))),
            shard.push(void(1, 0)),
            shard.push(push(2, 0, gradient=one)),
        )
        return await shard.snapshot()

    state = asyncio.run(scenario())
    assert (state.version, state.meta["adam_updates"]) == (1, 1)
    assert only_gradient(state) == pytest.approx(np.full(6, (3 * 1 + 5) / 4))


def test_void_pushes_are_counted_and_move_nothing():
    async def scenario(synchronous):
        shard = await make_shard(synchronous, controller_replicas=2, strategy=PPO(epochs=1))
        receipts = await asyncio.gather(shard.push(void(0, 0)), shard.push(void(1, 0)))
        assert {receipt.verdict for receipt in receipts} == {"void"}
        assert (await shard.push(void(0, 0))).verdict == "duplicate"
        return await shard.snapshot()

    for synchronous, version in ((True, 1), (False, 0)):
        state = asyncio.run(scenario(synchronous))
        assert state.version == version
        assert state.meta["last_push"] == {"0": 0, "1": 0}
        assert state.meta["adam_updates"] == 0
        assert state.meta["state"] == {"baseline": None}
        assert not any(array.any() for array in state.arrays.values())


@pytest.mark.parametrize("synchronous", [True, False])
def test_all_epochs_see_the_state_before_their_minibatch_and_each_reward_is_observed_once(synchronous):
    async def scenario():
        shard = await make_shard(synchronous, controller_replicas=1, strategy=PPO(epochs=3))
        seen = []
        for number in range(7):
            seen.append((await shard.pull(0, number)).state["baseline"])
            await shard.push(push(0, number, base=number, rewards=(0.5 if number < 3 else 0.9,)))
        return seen

    assert asyncio.run(scenario()) == [None] * 3 + [0.5] * 3 + [pytest.approx(0.52)]


def test_the_epochs_of_accumulated_gradients_follow_each_others_updates():
    """Two replicas share every update: the second epoch of each is at the weights that both first ones have changed."""

    async def scenario(replicas):
        shard = await make_shard(controller_replicas=replicas, accumulate=2, strategy=PPO(epochs=2))
        bases = {}

        async def replica(index):
            await shard.pull(index, 0)
            await asyncio.sleep(0.01 * index)  # the children
            for epoch in range(2):
                bases[index, epoch] = base = (await shard.pull(index, epoch)).version
                await shard.push(push(index, epoch, base=base))

        await asyncio.wait_for(asyncio.gather(*(replica(i) for i in range(replicas))), 5)
        return bases

    assert asyncio.run(scenario(2)) == {(0, 0): 0, (1, 0): 0, (0, 1): 1, (1, 1): 1}
    assert asyncio.run(scenario(1)) == {(0, 0): 0, (0, 1): 0}, "a replica alone does not wait for ever"
    assert len(asyncio.run(scenario(5))) == 10
