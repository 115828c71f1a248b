"""Whole searches with every part in this process: what a run promises, without Ray."""

import asyncio
import dataclasses
import math

import pytest
from searches import EVOLUTION, LEARNERS, Trace, gradients, search, trace, with_topology

from nas_cluster import job
from nas_cluster.cluster.session.in_process import InProcess
from nas_cluster.cluster.session.stop import Stop
from nas_cluster.cluster.session.supervisor import Supervisor
from nas_cluster.core.errors import ConfigError, RunError
from nas_cluster.core.evaluation import Evaluation
from nas_cluster.estimators.simulated import Simulated
from nas_cluster.report import write_report
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.layout import CONFIG, JOURNAL, SNAPSHOTS
from nas_cluster.storage.snapshots import SnapshotStore

some_learners = pytest.mark.parametrize("learner", ["reinforce", "ppo_control", "evolution_control"])


def test_a_search_does_what_it_was_asked(simulated_job):
    outcome, record = search(simulated_job())
    assert outcome.ended == "done"
    assert record.counts()["done"] == 60
    assert sorted(row.child.number for row in record.children()) == list(range(60))
    assert len(record.batches()) == 20
    assert all(b.applied_at is not None and b.staleness == 0 for b in record.batches())
    assert outcome.progress.updates == 10
    assert record.sessions()[-1].ended == "done"


@some_learners
def test_synchronous_searches_are_equal_bit_by_bit_whatever_the_shards_and_speeds(simulated_job, learner):
    changes = LEARNERS[learner]
    slow = {"duration": {"seconds": 0.002, "sigma": 1.0}}
    _, first = search(simulated_job(**changes))
    _, second = search(simulated_job(name="other", estimator=slow, **with_topology(changes, parameter_shards=7)))
    assert trace(first) == trace(second)
    _, third = search(simulated_job(name="third", seed=2, **changes))
    assert trace(first) != trace(third)


def test_two_traces_that_differ_say_where():
    whole = {(0, 0, -1): {"epochs": 1}, (0, 0, 0): {"arm": "search", "reward": 0.5}, (1, 0, 0): {"arm": "search"}}
    changed = {**whole, (0, 0, 0): {"arm": "search", "reward": 0.25}}
    shorter = {place: row for place, row in whole.items() if place[0] == 0}
    assert Trace(whole, "a done").difference(Trace(changed, "b done")) == [
        "a done: 3 records",
        "b done: 3 records",
        "first at update 0, replica 0, child 0:",
        "  reward: 0.5 != 0.25",
    ]
    assert Trace(whole, "a done").difference(Trace(shorter, "b stopped"))[-2:] == [
        "first at update 1, replica 0, child 0:",
        "  only the first has it",
    ]


def test_a_replica_more_changes_no_earlier_replicas_first_samples(simulated_job):
    _, two = search(simulated_job())
    _, three = search(simulated_job(name="three", topology={"controller_replicas": 3}))
    first = [{r.child.tokens for r in record.batch_children(1, 0)} for record in (two, three)]
    assert first[0] == first[1]


@some_learners
def test_resuming_with_a_larger_budget_equals_one_longer_search(simulated_job, learner):
    changes = {"budget": {"max_children": 100}, **LEARNERS[learner]}
    search(simulated_job(**{**changes, "budget": {"max_children": 25}}))  # ends inside a round
    outcome, continued = search(simulated_job(**changes))
    _, whole = search(simulated_job(name="whole", **changes))
    assert outcome.ended == "done"
    assert trace(continued) == trace(whole)
    assert len(continued.sessions()) == 2


def test_running_a_finished_job_again_changes_nothing(simulated_job):
    _, record = search(simulated_job())
    before = trace(record)
    outcome, record = search(simulated_job())
    assert (outcome.ended, outcome.progress.children_done) == ("done", 60)
    assert trace(record) == before
    assert len(record.sessions()) == 1


def test_shards_may_change_between_sessions(simulated_job):
    search(simulated_job(budget={"max_children": 30}))
    _, continued = search(simulated_job(topology={"parameter_shards": 5}))
    _, whole = search(simulated_job(name="whole"))
    assert trace(continued) == trace(whole)


@pytest.mark.parametrize(
    "learner,how", [("reinforce", "wait"), ("reinforce", "down_weight"), ("reinforce", "drop"), ("ppo", "wait")]
)
def test_an_asynchronous_search_counts_every_child_once_and_bounds_staleness(simulated_job, learner, how):
    topology = {"controller_replicas": 5, "max_staleness": 4, "stale_gradients": how}
    config = simulated_job(
        mode="asynchronous",
        estimator={"duration": {"seconds": 0.003, "sigma": 1.5}},
        budget={"max_children": 200},
        **with_topology(LEARNERS[learner], **topology),
    )
    outcome, record = search(config)
    assert outcome.ended == "done"
    assert sorted(row.child.number for row in record.children()) == list(range(200))
    assert {b.verdict for b in record.batches()} <= {"applied", "dropped" if how == "drop" else "down_weighted"}
    if how == "wait":
        assert max(b.staleness for b in record.batches()) <= 4
        assert all(b.verdict == "applied" for b in record.batches())


def test_controls_are_drawn_by_their_number_and_teach_nothing(simulated_job, tmp_path):
    faults = {"faults": {57: "exception", 58: "exception"}}
    control = {"control": {"share": 0.3}, "estimator": faults, "failures": {"reward": -1.0}}
    _, evolved = search(simulated_job(name="evolved", strategy=EVOLUTION, **control))
    _, learned = search(simulated_job(name="learned", **control))
    drawn = [
        {row.child.number: row.child.tokens for row in record.children() if row.arm == "control"}
        for record in (evolved, learned)
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 18
    taught = [row for row in sorted(evolved.children(), key=lambda row: row.child.number) if row.arm == "search"]
    (_, _, meta), _ = SnapshotStore(tmp_path / "evolved" / SNAPSHOTS).newest_good(evolved.snapshots())
    assert meta["shards"][0]["state"]["population"] == [[list(r.child.tokens), r.reward] for r in taught[-15:]]
    assert -1.0 in [r.reward for r in taught[-15:]], "failed children are members"
    baseline = None
    for row in sorted(learned.children(), key=lambda row: row.child.number):
        if row.arm == "search":
            baseline = row.reward if baseline is None else baseline + 0.05 * (row.reward - baseline)
    (_, _, meta), _ = SnapshotStore(tmp_path / "learned" / SNAPSHOTS).newest_good(learned.snapshots())
    assert meta["shards"][0]["state"]["baseline"] == pytest.approx(baseline)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("bound", [None, 2])
def test_a_batch_may_mix_children_of_several_replicas(simulated_job, bound):
    """PPO's epochs over batches of four children of six replicas: every gradient counts and nobody waits for ever."""
    config = simulated_job(
        mode="asynchronous",
        estimator={"duration": {"seconds": 0.005, "sigma": 1.5}},
        budget={"max_children": 50},
        control={"share": 0.2},
        **with_topology(
            LEARNERS["ppo"], controller_replicas=6, children_per_replica=1, accumulate=4, max_staleness=bound
        ),
    )
    outcome, record = search(config)
    assert outcome.ended == "done"
    assert gradients(config, record) == 40 * 3
    assert outcome.progress.updates == 40 * 3 // 4
    assert all(b.learning_epochs == 3 and b.applied_at is not None for b in record.batches())
    if bound is not None:
        assert max(b.staleness for b in record.batches()) <= bound


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("learner", ["reinforce", "evolution"])
def test_a_space_that_grows_is_searched_and_resumed_by_one_controller(simulated_job, mode, learner):
    """The step from 2 to 4 layers falls inside a minibatch, and the run is broken off before and continued after it."""
    growth = {"space": {"layers": 2, "growth": {"by": 2, "every": 20}}, "mode": mode, **LEARNERS[learner]}
    if learner == "evolution":
        growth["strategy"] = {**growth["strategy"], "population": 5}
    search(simulated_job(name="grown", budget={"max_children": 14}, **growth))
    outcome, record = search(simulated_job(name="grown", budget={"max_children": 66}, **growth))
    assert outcome.ended == "done"
    depths = {row.child.first_number: len(row.child.architecture["layers"]) for row in record.children()}
    assert depths == {stage: 2 + 2 * (stage // 20) for stage in depths}
    assert set(depths.values()) == {2, 4, 6, 8}
    if mode == "synchronous":
        _, whole = search(simulated_job(name="whole", budget={"max_children": 66}, **growth))
        assert trace(record) == trace(whole)


def test_random_search_on_the_same_engine(simulated_job):
    outcome, record = search(simulated_job(strategy="random"))
    assert outcome.ended == "done"
    assert record.counts()["done"] == 60


def test_the_cache_answers_known_architectures_with_the_same_reward(simulated_job):
    tiny = {"layers": 2, "filter_heights": [1], "filter_widths": [3], "filters": [8, 16], "skip_connections": False}
    noisy = {"noise": 0.1}
    _, cached = search(simulated_job(space=tiny, estimator=noisy, budget={"max_children": 40}))
    assert cached.counts()["cached"] >= 36 - 12  # 4 architectures, few of them twice in flight
    rewards = {}
    for row in cached.children():
        rewards.setdefault(row.child.key, set()).add(row.reward)
    assert all(len(values) == 1 for values in rewards.values())
    _, trained = search(
        simulated_job(name="off", space=tiny, estimator=noisy, cache=False, budget={"max_children": 40})
    )
    assert trained.counts()["cached"] == 0


def test_failed_children_are_recorded_with_their_cause_and_the_search_goes_on(simulated_job):
    faults = {"faults": {3: "exception", 7: "diverged", 11: "bad_result", 20: "timeout"}}
    config = simulated_job(estimator=faults, failures={"reward": -1.0, "time_limit": 0.2})
    outcome, record = search(config)
    assert outcome.ended == "done"
    counts = record.counts()
    assert (counts["failed"], counts["ok"]) == (4, 56)
    by_number = {row.child.number: row for row in record.children()}
    for number, cause in faults["faults"].items():
        assert by_number[number].evaluation.cause == cause
        assert by_number[number].reward == -1.0


def test_too_many_failures_in_a_row_stop_the_run_with_the_reason(simulated_job):
    config = simulated_job(estimator={"fault_rate": 1.0}, failures={"max_in_a_row": 8})
    outcome, record = search(config)
    assert outcome.ended == "failed"
    assert "8 children failed in a row" in outcome.reason
    assert "simulated exception" in outcome.reason
    healed = simulated_job(estimator={"fault_rate": 1.0}, failures={"max_in_a_row": 1000}, budget={"max_children": 20})
    outcome, record = search(healed)
    assert outcome.ended == "done"
    assert record.counts()["failed"] == 20


def test_a_target_reward_ends_the_search_early(simulated_job):
    outcome, record = search(simulated_job(budget={"max_children": 3000, "target_reward": 0.7}))
    assert outcome.ended == "done"
    assert outcome.progress.best_reward >= 0.7
    assert record.counts()["done"] < 3000


def test_hours_are_counted_without_downtime(simulated_job):
    slow = {"duration": {"seconds": 0.05}}
    hour = {"max_children": None, "max_hours": 0.6 / 3600}
    outcome, record = search(simulated_job(estimator=slow, budget=hour))
    assert outcome.ended == "done"
    assert 0.5 <= record.active_seconds() <= 3
    before = record.counts()["done"]
    outcome, record = search(simulated_job(estimator=slow, budget=hour))
    assert record.counts()["done"] == before


@some_learners
def test_a_damaged_snapshot_falls_back_and_the_run_comes_out_the_same(simulated_job, tmp_path, measured, learner):
    changes = LEARNERS[learner]
    search(simulated_job(**{**changes, "budget": {"max_children": 42}}))
    record = job.load_run(tmp_path / "job")
    newest = record.snapshots()[0]
    path = tmp_path / "job" / SNAPSHOTS / newest.path
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    _, continued = search(simulated_job(**changes))
    _, whole = search(simulated_job(name="whole", **changes))
    assert trace(continued) == trace(whole)
    assert "snapshot_refused" in {event.kind for event in continued.events()}
    measured(f"snapshot damaged, {learner}", "the one before, trace bit-identical")


def test_without_any_readable_snapshot_the_run_refuses_clearly(simulated_job, tmp_path):
    search(simulated_job())
    for file in (tmp_path / "job" / SNAPSHOTS).iterdir():
        file.write_bytes(b"")
    with pytest.raises(RunError, match="no snapshot of this run can be read"):
        search(simulated_job(budget={"max_children": 90}))


def test_another_config_is_refused_with_the_difference(simulated_job):
    search(simulated_job())
    with pytest.raises(ConfigError, match=r"space.layers: the run has 3, the config says 4"):
        search(simulated_job(space={"layers": 4}))


def test_a_job_killed_while_its_directory_was_made_starts_again(simulated_job, tmp_path):
    (tmp_path / "job").mkdir()
    for name in (f".{JOURNAL}.123", f".{JOURNAL}.123-journal"):
        (tmp_path / "job" / name).write_bytes(b"half a journal")
    search(simulated_job(budget={"max_children": 12}))
    (tmp_path / "job" / CONFIG).unlink()
    outcome, record = search(simulated_job(budget={"max_children": 12}))
    assert (outcome.ended, record.counts()["done"]) == ("done", 12)
    assert (tmp_path / "job" / CONFIG).exists()
    (tmp_path / "job" / JOURNAL).unlink()
    with pytest.raises(RunError, match="is not empty and holds no run"):
        search(simulated_job())


def test_a_run_in_use_is_refused(simulated_job, tmp_path):
    search(simulated_job())
    with Journal.open(tmp_path / "job"), pytest.raises(RunError, match="is in use by process"):
        search(simulated_job())


@some_learners
def test_the_final_snapshot_holds_every_gradient_once(simulated_job, tmp_path, learner):
    changes = with_topology(LEARNERS[learner], controller_replicas=3)
    config = simulated_job(mode="asynchronous", budget={"max_children": 90}, **changes)
    _, record = search(config)
    (row, _, meta), _ = SnapshotStore(tmp_path / "job" / SNAPSHOTS).newest_good(record.snapshots())
    assert row.version == gradients(config, record)
    epochs = config.strategy.learning_epochs
    for shard in meta["shards"]:
        assert shard["adam_updates"] == gradients(config, record)
        last = {r: max(b.update for b in record.batches() if b.replica == r) for r in range(3)}
        pushes = {int(r): number for r, number in shard["last_push"].items()}
        assert pushes == {r: (update + 1) * epochs - 1 for r, update in last.items()}


def test_every_run_writes_tensorboard_scalars(simulated_job, tmp_path):
    search(simulated_job())
    (events,) = (tmp_path / "job" / "tensorboard").iterdir()
    content = events.read_bytes()
    for tag in (b"children/reward", b"children/best_reward", b"controller/entropy", b"controller/staleness"):
        assert tag in content


def test_rows_are_plain_data(simulated_job):
    _, record = search(simulated_job())
    assert dataclasses.is_dataclass(record.top(1)[0])
    assert record.top(3)[0].reward >= record.top(3)[1].reward >= record.top(3)[2].reward
    assert len({row.child.key for row in record.top(10)}) == 10


def stop_after(config, children):
    """Run a session and ask it to stop once so many children are done."""
    directory = job.prepare(config)

    async def scenario():
        stop = Stop()

        def watch(progress):
            if progress.children_done >= children:
                stop.ask("enough", "interrupted")

        return await Supervisor(config, directory, InProcess(), watch).run(stop)

    return asyncio.run(scenario())


@pytest.mark.parametrize("replicas", [2, 7])
def test_the_number_of_replicas_may_change_between_asynchronous_sessions(simulated_job, replicas):
    """Minibatches of replicas that the topology no longer has are finished: every child and gradient still counts."""
    options = {
        "mode": "asynchronous",
        "estimator": {"duration": {"seconds": 0.08, "sigma": 0.5}},
        "budget": {"max_children": 150},
    }
    outcome = stop_after(simulated_job(topology={"controller_replicas": 4}, **options), 20)
    assert outcome.ended == "interrupted"
    outcome, record = search(simulated_job(topology={"controller_replicas": replicas}, **options))
    assert outcome.ended == "done"
    assert sorted(row.child.number for row in record.children()) == list(range(150))
    assert all(row.done for row in record.children())
    assert all(batch.applied_at is not None for batch in record.batches())
    assert outcome.progress.updates == len(record.batches())
    assert {batch.replica for batch in record.batches()} == set(range(max(4, replicas)))


@some_learners
def test_an_interrupted_synchronous_search_continues_bit_by_bit(simulated_job, learner):
    slow = {"estimator": {"duration": {"seconds": 0.03, "sigma": 0.5}}, **LEARNERS[learner]}
    for _ in range(3):
        outcome = stop_after(simulated_job(**slow), 5)
        assert outcome.ended in ("interrupted", "done")
    _, record = search(simulated_job(**slow))
    _, whole = search(simulated_job(name="whole", **slow))
    assert trace(record) == trace(whole)


def test_the_metric_that_counts_need_not_be_the_estimators_own(simulated_job):
    fast = {"duration": {"seconds": 0.002, "sigma": 1.0}}
    _, record = search(
        simulated_job(estimator=fast, objectives={"seconds": "min"}, failures={"reward": -10}, cache=False)
    )
    rows = record.children()
    assert all(row.metric == row.evaluation.seconds and row.reward == -row.metric for row in rows)
    assert record.top(1)[0].metric == min(row.metric for row in rows)
    assert all("accuracy" in row.evaluation.metrics for row in rows)


@pytest.mark.parametrize(
    ("changes", "cause"), [({"reward": "math:acosh"}, "bad_reward"), ({"objectives": {"flops": "max"}}, "bad_result")]
)
def test_a_child_without_a_reward_or_the_metric_that_counts_has_failed_and_the_run_goes_on(
    simulated_job, changes, cause
):
    failures = {"max_in_a_row": 1000, "reward": -1.0}
    outcome, record = search(simulated_job(failures=failures, estimator={"target_seed": 3}, **changes))
    assert outcome.ended == "done"
    failed = [row for row in record.children() if not row.ok]
    assert {row.evaluation.cause for row in failed} == {cause}
    assert all((row.metric, row.reward) == (None, -1.0) for row in failed)
    assert len(failed) >= 50, "of acosh only the best children have a value"


def huge(metric):
    return 1e30 if metric > 0.5 else -1e30


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("strategy", ["reinforce", "ppo"])
def test_rewards_as_large_as_they_may_be_break_no_sum(simulated_job, strategy):
    """Nor the weights, whose squares of gradients overflow first."""
    outcome, record = search(
        simulated_job(reward=f"{__name__}:huge", failures={"reward": -1e30}, strategy={"kind": strategy})
    )
    assert outcome.ended == "done"
    assert all(math.isfinite(value) for row in record.batches() for value in row.scalars.values())
    assert {row.reward for row in record.children()} == {1e30, -1e30}
    assert "<svg" in write_report(record, record.directory / "report.html").read_text()


def test_numbers_that_no_journal_takes_are_bad_results_or_floats(simulated_job, monkeypatch):
    def result(settings, child, context, seconds):
        further = {"parameters": 1e308} if child.number % 2 else {"seconds": 1.0}
        return Evaluation({"accuracy": 0.5, "flops": 2**70 + child.number, **further})

    monkeypatch.setattr(Simulated, "result", result)
    outcome, record = search(simulated_job(objectives={"flops": "max"}, reward=f"{__name__}:huge", cache=False))
    assert outcome.ended == "done"
    for row in record.children():
        assert row.evaluation.cause == ("bad_result" if row.child.number % 2 else None)
        assert row.metric == (None if row.child.number % 2 else float(2**70))


@pytest.mark.parametrize("isolated", [False, True])
def test_what_children_report_is_in_the_journal(simulated_job, isolated):
    """Longer than a second: a part of a curve comes while the child is at work, the rest with its answer."""
    estimator = {"reports": 6, "isolated": isolated, "duration": {"seconds": 1.8}}
    topology = {"controller_replicas": 1, "children_per_replica": 2}
    config = simulated_job(estimator=estimator, topology=topology, budget={"max_children": 4})
    _, record = search(config)
    trained = [row for row in record.children() if row.cached_from is None]
    curves = record.curves("accuracy")
    assert set(curves) == {str(row.child.child_id) for row in trained}
    for row in trained:
        reports = record.reports(str(row.child.child_id))
        assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
        assert reports[-1].metrics == {"accuracy": row.metric, "loss": 0.0}
        assert curves[str(row.child.child_id)] == [(report.step, report.metrics["accuracy"]) for report in reports]


def test_a_search_that_reports_is_the_same_search(simulated_job):
    _, silent = search(simulated_job())
    _, chatty = search(simulated_job(name="chatty", estimator={"reports": 3}))
    assert trace(silent) == trace(chatty)
