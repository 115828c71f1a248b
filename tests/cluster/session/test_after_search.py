"""What follows a search: stages in the config, grids, transfers, published architectures; broken off and continued."""

import multiprocessing
import os
import random
import signal
from dataclasses import replace

import pytest

from nas_cluster import job
from nas_cluster.cluster.session.stages import Finalist, Planned, StageResult, rank, training_key
from nas_cluster.config import Stage
from nas_cluster.core.component import build_component
from nas_cluster.core.errors import ConfigError, RunStopped
from nas_cluster.core.evaluation import Evaluation
from nas_cluster.estimators import Estimator
from nas_cluster.retrain import retrain
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.rows import TrainingRow

FORK = multiprocessing.get_context("fork")

STAGES = [
    {"name": "rerank", "top": 6, "seeds": 2, "estimator": {"kind": "simulated", "target_seed": 3}},
    {"name": "grid", "top": 3, "grid": {"target_seed": [0, 7], "noise": [0.001]}},
    {"name": "winner", "seeds": 3, "test": True},
]


def record_of(config):
    return job.load_run(f"{config.storage_path}/{config.name}")


def results_of(record):
    return results_of_rows(record.trainings())


def results_of_rows(rows):
    return [(row.key, row.rank, row.metric, row.reward, row.test_metric) for row in rows]


def test_stages_narrow_the_search_down_to_a_tested_winner(simulated_job):
    config = simulated_job(finalize=STAGES)
    job.execute(config, local=True)
    record = record_of(config)
    assert record.state() == "done"
    stages = {name: [r for r in record.trainings() if r.stage == name] for name in ("rerank", "grid", "winner")}
    assert [len(rows) for rows in stages.values()] == [6 * 2, 3 * 2, 3]
    searched = [str(row.child.child_id) for row in record.top(6)]
    assert [r.source for r in stages["rerank"] if r.seed == 0] == searched
    means = {s: sum(r.reward for r in stages["rerank"] if r.source == s) / 2 for s in searched}
    assert {r.source for r in stages["grid"]} == set(sorted(searched, key=lambda s: -means[s])[:3])
    best = max(stages["grid"], key=lambda r: r.reward)
    assert {r.source for r in stages["winner"]} == {best.source}
    chosen = {r.settings["estimator"]["target_seed"] for r in stages["winner"]}
    assert chosen == {best.settings["point"]["target_seed"]}, "the grid's choice goes on to the winner"
    assert {r.settings["estimator"]["noise"] for r in stages["winner"]} == {0.0}, "what had one value does not"
    assert all(r.test_metric is not None for r in stages["winner"])
    assert all(r.test_metric is None for r in stages["rerank"] + stages["grid"]), "only the winner sees the test set"


def test_a_finished_job_is_not_started_again_and_a_stage_more_is(simulated_job):
    config = simulated_job(finalize=STAGES[:1])
    job.execute(config, local=True)
    sessions = len(record_of(config).sessions())
    assert job.execute(config, local=True).ended == "done"
    assert len(record_of(config).sessions()) == sessions
    before = results_of(record_of(config))
    longer = simulated_job(finalize=STAGES)
    assert job.execute(longer, local=True).ended == "done"
    record = record_of(longer)
    assert results_of(record)[: len(before)] == before, "what was trained stays"
    assert {row.stage for row in record.trainings()} == {"rerank", "grid", "winner"}
    assert [s.kind for s in record.sessions()].count("search") == 1, "the search is over"


def test_scores_are_correlated_with_training_alone_on_request(simulated_job):
    """Random architectures are scored like children, and a spread of them from best to worst is trained alone."""
    config = simulated_job(correlate={"children": 6, "samples": 21}, retrain={"kind": "simulated", "target_seed": 0})
    job.execute(config, local=True)
    record = record_of(config)
    assert record.state() == "done"
    scores = [row for row in record.trainings() if row.stage == "correlate_scores"]
    alone = [row for row in record.trainings() if row.stage == "correlate"]
    assert len({row.source for row in scores}) == len(scores) <= 21
    ordered = [row.source for row in sorted(scores, key=lambda row: -row.reward)]
    trained = [row.source for row in alone]
    assert len(trained) == 6
    assert (trained[0], trained[-1]) == (ordered[0], ordered[-1])
    assert [ordered.index(source) for source in trained] == [round(i * (len(ordered) - 1) / 5) for i in range(6)]


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"correlate": {"children": 8}}, "correlate: set `retrain`"),
        (
            {"correlate": {"children": 8, "epochs": 2}, "retrain": {"kind": "simulated"}},
            "correlate: .*epochs.*",
        ),
        (
            {
                "correlate": {"children": 8},
                "retrain": {"kind": "simulated"},
                "finalize": [{"name": "correlate", "top": 1}],
            },
            "finalize: a stage is called 'correlate'",
        ),
        ({"correlate": {"children": 2}, "retrain": {"kind": "simulated"}}, "correlate.children"),
    ],
)
def test_what_cannot_be_correlated_is_refused(simulated_job, wrong, line):
    with pytest.raises(ConfigError, match=line):
        simulated_job(**wrong)


def test_a_stage_may_draw_from_the_policy_that_the_search_ended_with(simulated_job):
    """What a policy that has learned proposes is better than what the search scored on the way."""
    stages = [{"name": "derive", "sample": 40}, {"name": "winner", "test": True}]
    config = simulated_job(finalize=stages, budget={"max_children": 300})
    job.execute(config, local=True)
    record = record_of(config)
    derived = [row for row in record.trainings() if row.stage == "derive"]
    assert 1 < len({row.source for row in derived}) == len(derived) <= 40
    scored = [row.reward for row in record.children()]
    assert sum(row.reward for row in derived) / len(derived) > sum(scored) / len(scored)
    (winner,) = [row for row in record.trainings() if row.stage == "winner"]
    assert winner.source == max(derived, key=lambda row: row.reward).source


def test_a_failed_training_ranks_as_a_failed_child_and_all_of_them_stop_the_run(simulated_job):
    config = simulated_job(finalize=[{"name": "a", "top": 4, "estimator": {"kind": "simulated", "fault_rate": 0.5}}])
    job.execute(config, local=True)
    rows = record_of(config).trainings()
    assert {row.evaluation.status for row in rows} == {"ok", "failed"}
    broken = simulated_job(
        name="broken", finalize=[{"name": "a", "top": 4, "estimator": {"kind": "simulated", "fault_rate": 1.0}}]
    )
    outcome = job.execute(broken, local=True)
    assert outcome.ended == "failed"
    assert "stage a: every training failed; the last: exception" in outcome.reason
    assert record_of(broken).state() == "failed"


def test_an_architecture_whose_trainings_all_failed_is_last_whatever_the_numbers():
    def planned(source, reward):
        row = TrainingRow("a", source, {}, 1, 0, {}, Evaluation({"accuracy": 1.0}), reward, reward)
        if reward is None:
            row = replace(row, evaluation=Evaluation.failure("exit", "m"))
        return Planned(row, None, Finalist(source, None), {})

    every = [planned("failed", None), planned("bad", -3.0), planned("worse", -4.0)]
    result = rank(Stage(name="a"), every, {one.row.key: one.row for one in every}, failure_reward=0.0)
    assert [one.finalist.source for one in result.ranked] == ["bad", "worse", "failed"]


def test_what_was_trained_before_is_judged_by_the_metric_that_is_asked_for_now(simulated_job, tmp_path):
    config = simulated_job(estimator={"duration": {"seconds": 0.001, "sigma": 1.0}})
    job.execute(config, local=True)
    before = results_of(record_of(config))
    (first,) = retrain(tmp_path / "job", top=2, seeds=1, local=True)
    asked = ["objectives={seconds: min}", "reward=identity", "failures.reward=-10"]
    (second,) = retrain(tmp_path / "job", top=3, seeds=1, local=True, overrides=asked)
    rows = [row for one in second.ranked for row in one.rows]
    assert len(rows) == 3
    assert all(row.metric == row.evaluation.seconds and row.reward == -row.metric for row in rows)
    assert sorted(rows, key=lambda row: row.metric) == rows
    recorded = results_of(record_of(config))
    assert recorded[: len(before) + 2] == [
        *before,
        *results_of_rows(row for one in first.ranked for row in one.rows),
    ], "the record stays"
    with pytest.raises(RunStopped, match="no metric 'flops', which counts; it has accuracy, seconds"):
        retrain(tmp_path / "job", top=2, seeds=1, local=True, overrides=["objectives={flops: max}"])


def session(config):
    os.setsid()
    job.execute(config, local=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stages_killed_at_random_moments_end_with_the_same_results(simulated_job):
    slow = [{**stage, "top": 3} for stage in STAGES]
    slow[0]["estimator"] = {"kind": "simulated", "target_seed": 3, "duration": {"seconds": 0.05}}
    changes = {"estimator": {"duration": {"seconds": 0.01}}, "budget": {"max_children": 24}}
    whole = simulated_job(name="whole", finalize=slow, **changes)
    job.execute(whole, local=True)
    rng, kills, runs = random.Random(5), 0, 0
    while kills < 20:
        runs += 1  # a quick session may get through before it is killed
        config = simulated_job(name=f"broken-{runs}", finalize=slow, **changes)
        longest = 0.3
        while True:
            process = FORK.Process(target=session, args=(config,))
            process.start()
            process.join(rng.uniform(0.05, longest))
            longest *= 1.2  # on a slow machine too a session must get somewhere in the end
            if not process.is_alive():
                assert process.exitcode == 0
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
        assert results_of(record_of(config)) == results_of(record_of(whole))
        assert record_of(config).state() == "done"


def test_retrain_takes_winners_published_architectures_and_those_of_other_runs(simulated_job, tmp_path):
    config = simulated_job()
    job.execute(config, local=True)
    done = []
    (result,) = retrain(tmp_path / "job", top=2, seeds=2, local=True, on_training=done.append)
    assert isinstance(result, StageResult)
    assert len(done) == 4
    assert [one.finalist.source for one in result.ranked] == [str(r.child.child_id) for r in record_of(config).top(2)]
    (named,) = retrain(
        tmp_path / "job", seeds=1, architectures=[f"{tmp_path}/job:2", f"{tmp_path}/job:r0-u0-i1"], local=True
    )
    second = record_of(config).top(2)[1].child
    assert {one.finalist.source for one in named.ranked} == {str(second.child_id), "r0-u0-i1"}
    assert record_of(config).state() == "done", "a retraining does not change how the search stands"


@pytest.mark.slow
def test_an_architecture_is_trained_without_any_search(simulated_job, tmp_path):
    """A published network on a config's dataset and estimator, at another size, with a grid."""
    config = simulated_job(
        estimator={
            "kind": "train",
            "epochs": 1,
            "input_size": 4,
            "crop_padding": 0,
            "flip": False,
            "validation": 1200,
            "batch_size": 121,
        }
    )
    directory = job.prepare(config)
    grid, final = retrain(
        directory,
        seeds=1,
        architectures=["layerwise_cnn:nas_v1"],
        grid={"learning_rate": [0.01, 0.1]},
        overrides=["scale.extra_filters=1"],
        local=True,
    )
    assert [len(grid.ranked), len(final.ranked)] == [2, 1]
    (row,) = final.ranked[0].rows
    assert row.settings["estimator"]["learning_rate"] == grid.ranked[0].point["learning_rate"]
    assert row.evaluation.parameters > 4_200_000
    assert 0 <= row.test_metric <= 1


def test_a_signal_stops_a_stage_and_what_was_trained_stays(simulated_job, tmp_path):
    slow = {"kind": "simulated", "duration": {"seconds": 0.1}}
    config = simulated_job(finalize=[{"name": "a", "top": 30, "seeds": 3, "estimator": slow}], topology={"slots": 2})
    count = 0

    def interrupt(row):
        nonlocal count
        count += 1
        if count == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = job.execute(config, local=True, on_training=interrupt)
    assert outcome.ended == "stopped"
    done = [row for row in record_of(config).trainings() if row.evaluation]
    assert 4 <= len(done) <= 8
    assert record_of(config).state() == "stopped"
    with pytest.raises(RunStopped), Journal.open(tmp_path / "job"):
        raise RunStopped("the lock is free again")


def test_stages_that_make_no_sense_are_refused(simulated_job):
    text = {"name": "a", "scale": {"paddin": "centre"}}
    with pytest.raises(ConfigError, match=r"finalize\.0\.scale\.paddin: unknown key; did you mean 'padding'"):
        simulated_job(finalize=[text])
    with pytest.raises(ConfigError, match=r"finalize\.0\.grid\.kind"):
        simulated_job(finalize=[{"name": "a", "grid": {"kind": ["simulatd"]}}])
    with pytest.raises(ConfigError, match=r"finalize\.0\.estimator\.epoch: unknown key"):
        simulated_job(finalize=[{"name": "a", "estimator": {"kind": "train", "epoch": 3}}])


def test_trainings_after_the_search_report_apart_from_its_children(simulated_job):
    config = simulated_job(finalize=[{"name": "winner", "top": 2, "seeds": 2}], estimator={"reports": 4})
    job.execute(config, local=True)
    record = record_of(config)
    trainings = record.trainings()
    assert len({row.name for row in trainings}) == 4
    for row in trainings:
        reports = record.reports(row.name, stage="winner")
        assert [report.step for report in reports] == [1, 2, 3, 4]
        assert reports[-1].metrics["accuracy"] == row.metric
    assert not {row.name for row in trainings} & record.curves("accuracy").keys()


def test_a_training_is_known_whatever_options_its_estimator_has_been_given_since():
    """0.1 wrote a reward into the estimator, and options that have come since are not in its rows."""
    old = {"kind": "train", "epochs": 3, "metric": "best", "reward": "accuracy_cubed"}
    now = build_component(Estimator, {"kind": "train", "epochs": 3, "counts": "best"}, where="estimator")
    rest = {"dataset": {"kind": "digits"}, "scale": {}, "test": False, "point": {}}
    rows = [
        TrainingRow("winner", "r0-u0-i0", {}, 1, 0, {**rest, "estimator": settings})
        for settings in (old, now.model_dump(mode="json"), {**old, "epochs": 4}, {"kind": "nobodys:Estimator"})
    ]
    keys = [training_key(row) for row in rows]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
