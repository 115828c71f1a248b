"""A job's config: what is read, what is refused, and in which words."""

import json
import re
from pathlib import Path

import pytest

from nas_cluster.config import Control, JobConfig
from nas_cluster.config.loading import write_yaml
from nas_cluster.config.schema import job_schema
from nas_cluster.core.errors import ConfigError
from nas_cluster.core.evaluation import Evaluation

CONFIGS = Path(__file__).parents[2] / "configs"

GOOD = """
name: demo
seed: 3
mode: asynchronous
space: {kind: layerwise_cnn, layers: 3}
strategy: {kind: reinforce, learning_rate: 1e-3}
estimator: simulated
topology: {parameter_shards: 2, controller_replicas: 2, children_per_replica: 2, resources: {CPU: 1}}
budget: {max_children: 10}
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="job.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_config_is_one_frozen_object(write):
    config = JobConfig.load(write(GOOD))
    assert config.strategy.learning_rate == 0.001
    assert config.dataset.kind == "digits"
    with pytest.raises(Exception, match="frozen"):
        config.seed = 4


def test_plain_data_round_trip(write):
    config = JobConfig.load(write(GOOD))
    again = JobConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.identity == config.identity


def test_overrides(write):
    config = JobConfig.load(
        write(GOOD), ["topology.slots=7", "space.filters=[8, 16]", "estimator.kind=simulated", "seed=5"]
    )
    assert (config.topology.slots, list(config.space.filters), config.seed) == (7, [8, 16], 5)


def test_a_component_of_somebody_else(write, tmp_path, monkeypatch):
    (tmp_path / "their_space.py").write_text(
        "from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN\nclass Mine(LayerwiseCNN):\n    extra: int = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = JobConfig.load(write(GOOD), ["space={kind: 'their_space:Mine', extra: 4}"])
    assert (config.space.kind, config.space.extra) == ("their_space:Mine", 4)
    assert JobConfig.from_dict(config.to_dict()) == config


WRONG = {
    # overrides on the good config -> what the one line must say
    "nmae=x": ["nmae", "'name'"],
    "topology.parameter_shard=2": ["topology.parameter_shard", "'parameter_shards'"],
    "topology.resources.cpu=1": ["topology.resources.cpu", "'CPU'"],
    "budget.max_childs=2": ["'max_children'"],
    "strategy.learning_rat=2": ["strategy.learning_rat", "'learning_rate'"],
    "strategy.kind=reinforec": ["strategy.kind", "'reinforce'"],
    "space.kind=layerwise_cn": ["'layerwise_cnn'"],
    "space=null": ["space"],
    "estimator.kind=simulate": ["'simulated'"],
    "dataset=digit": ["'digits'"],
    "strategy.controller={kind: lstn}": ["strategy.controller", "'lstm'"],
    "strategy.controller={kind: lstm, hiden_size: 3}": ["hiden_size", "'hidden_size'"],
    "space.kind=os.path:join": ["os.path", "join"],
    "space.kind=no_such_module:X": ["no_such_module"],
    "space.kind=nas_cluster.spaces.layerwise_cnn:LayerwiseCN": ["'LayerwiseCNN'"],
    "mode=synchron": ["mode", "synchronous"],
    "seed=-1": ["seed", "greater than or equal to 0", "-1"],
    "seed=1.5": ["seed", "1.5"],
    "name=../escape": ["name"],
    "name=''": ["name"],
    "topology.parameter_shards=0": ["topology.parameter_shards", "0"],
    "topology.controller_replicas=two": ["topology.controller_replicas", "'two'"],
    "topology.resources.GPU=0.15": ["1/7"],
    "topology.resources.GPU=1.5": ["whole number", "2"],
    "topology.resources={CPU: 0, GPU: 0}": ["some CPU or GPU"],
    "topology.stale_gradients=drp": ["topology.stale_gradients", "'drop'"],
    "topology.max_staleness=0": ["max_staleness 0", "at least 1"],
    "topology=3": ["topology"],
    "budget={}": ["max_children"],
    "budget.max_children=0": ["budget.max_children"],
    "budget.max_hours=-2": ["budget.max_hours"],
    "budget.max_hours=.inf": ["budget.max_hours", "finite"],
    "budget.max_gpu_hours=4": ["never used up"],
    "failures.time_limit=0": ["failures.time_limit"],
    "mode=synchronous topology.accumulate=10": ["topology.accumulate", "asynchronous"],
    "mode=synchronous topology.max_staleness=3": ["topology.max_staleness"],
    "cache=perhaps": ["cache", "perhaps"],
    "control.share=0": ["control.share", "greater than 0"],
    "control.share=0.95": ["control.share", "less than or equal to 0.9"],
    "control.shre=0.2 control.share=0.2": ["control.shre", "'share'"],
    "strategy=random control.share=0.2": ["control", "'random'", "nothing to compare"],
    "strategy={kind: ppo, ratio: word}": ["strategy.ratio", "'token'"],
    "strategy={kind: ppo, epoch: 2}": ["strategy.epoch", "'epochs'"],
    "strategy={kind: ppo, controller: {kind: lstm, size: 3}}": ["strategy.controller.size"],
    "strategy={kind: regularized_evolution, population: 0}": ["strategy.population"],
    "space.layers=0": ["space.layers"],
    "space.filters=[]": ["space.filters"],
    "strategy.baseline_decay=1.5": ["strategy.baseline_decay"],
    "storage_path=3": ["storage_path"],
    "failures.stop_grace=-1": ["failures.stop_grace"],
    "failures.log_limit_mb=0": ["failures.log_limit_mb"],
    "topology.resources.label_selector={market type: spot}": ["label_selector", "'market type' is no label"],
    "topology.resources.label_selector={market: 'spot,'}": ["label_selector", "market", "'!value'", "'spot,'"],
    "topology.learner_label_selector={market: ''}": ["learner_label_selector", "market"],
}


@pytest.mark.parametrize("overrides", WRONG)
def test_a_wrong_value_gives_one_clear_line(write, overrides):
    path = write(GOOD)
    words = [overrides] if "{" in overrides else overrides.split(" ")
    with pytest.raises(ConfigError) as caught:
        JobConfig.load(path, words)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("job.yaml: ")
    for part in WRONG[overrides]:
        assert part in lines[0], lines[0]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.29, 1 / 3, 0.5, 0.9])
def test_controls_are_spread_evenly(share):
    taken = [Control(share=share).takes(number) for number in range(1000)]
    for count in range(1, 1001):
        assert abs(sum(taken[:count]) - count * share) < 1 + 1e-9


@pytest.mark.parametrize(
    "url",
    ["s3://KEY:hunter2@bucket/runs", "https://host/runs?token=hunter2", "ftp://me:hunter2@host", "s3://hunter2@b/r"],
)
def test_credentials_do_not_belong_in_a_config_and_are_not_repeated(write, url):
    with pytest.raises(ConfigError, match="storage_path: credentials do not belong") as caught:
        JobConfig.load(write(GOOD), [f"storage_path={url}"])
    assert "hunter2" not in str(caught.value)
    assert JobConfig.load(write(GOOD), ["storage_path=sftp://me@host/runs"]).storage_path == "sftp://me@host/runs"


def test_label_selectors_are_rays(write):
    from ray._private.label_utils import validate_label_selector

    good = {"ray.io/market-type": "spot", "zone": "in(a-1, b_2)", "kind": "!in(x,y)", "n": "!slow.one"}
    text = ", ".join(f"{key}: '{value}'" for key, value in good.items())
    config = JobConfig.load(write(GOOD), [f"topology.resources.label_selector={{{text}}}"])
    assert config.topology.resources.label_selector == good
    assert validate_label_selector(good) is None


def test_every_mistake_is_named_at_once(write):
    with pytest.raises(ConfigError) as caught:
        JobConfig.load(write(GOOD), ["seed=-1", "strategy.kind=nothing", "space.layer=3", "budget.max_children=0"])
    assert len(str(caught.value).splitlines()) == 4


FILES = {
    "duplicate": ("name: a\nname: b\n", ["job.yaml:2", "duplicate"]),
    "a list": ("- 1\n- 2\n", ["mapping"]),
    "empty": ("", ["mapping"]),
    "broken": ("name: [1, 2\nseed: 3\n", ["job.yaml:"]),
    "tabs": ("name:\n\t- a\n", ["job.yaml:2"]),
    "a tag": ("name: !!python/object:os.system x\n", ["job.yaml"]),
    "numbers as keys": ("1: a\n", ["key 1"]),
    "too deep": ("a: " + "[" * 40 + "]" * 40 + "\n", ["nested"]),
    "alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{c}: &{c} [{', '.join(['*' + p] * 10)}]\n" for p, c in zip("abcde", "bcdef", strict=True)),
        ["nested or aliased"],
    ),
    "itself": ("a: &a [*a]\n", ["nested or aliased"]),
    "many aliases": ("a: &a [x]\nb: [" + ", ".join(["*a"] * 101) + "]\n", ["job.yaml:2", "100 aliases"]),
    "merge bomb": (
        "a: &a {k: v}\n"
        + "".join(
            f"{c}: &{c} {{<<: [{', '.join(['*' + p] * 9)}]}}\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
        ),
        ["job.yaml:2", "merge keys"],
    ),
    "too large": ("a: " + "x" * (1 << 20) + "\n", ["larger than"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_damaged_file_gives_one_clear_line(write, case):
    text, parts = FILES[case]
    with pytest.raises(ConfigError) as caught:
        JobConfig.load(write(text))
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_missing_file_names_the_nearest(write, tmp_path):
    write(GOOD, "quickstart.yaml")
    with pytest.raises(ConfigError, match=r"quikstart.yaml: no such file; did you mean 'quickstart.yaml'"):
        JobConfig.load(tmp_path / "quikstart.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        JobConfig.load(tmp_path)


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=3", "seed.deeper=3", "seed=[1"])
def test_wrong_overrides(write, override):
    with pytest.raises(ConfigError, match="override"):
        JobConfig.load(write(GOOD), [override])


def test_a_run_continues_only_as_the_same_search(write):
    recorded = JobConfig.load(write(GOOD))
    JobConfig.load(write(GOOD), ["budget.max_children=99", "topology.slots=3"]).check_continues(recorded)
    with pytest.raises(ConfigError, match="seed: the run has 3, the config says 4"):
        JobConfig.load(write(GOOD), ["seed=4"]).check_continues(recorded)
    synchronous = JobConfig.load(write(GOOD), ["mode=synchronous"])
    wider = JobConfig.load(write(GOOD), ["mode=synchronous", "topology.controller_replicas=3"])
    with pytest.raises(ConfigError, match="would change the rounds"):
        wider.check_continues(synchronous)


@pytest.mark.parametrize("word", ["none", "null", "~", ""])
def test_a_job_may_have_no_dataset(write, word):
    config = JobConfig.load(write(GOOD), [f"dataset={word}"])
    assert config.dataset is None
    assert config == JobConfig.load(write(GOOD + f"dataset: {word}\n"))
    journaled = json.loads(json.dumps(config.to_dict()))
    assert journaled["dataset"] is None
    again = JobConfig.from_dict(journaled)
    assert (again, again.identity) == (config, config.identity)
    assert JobConfig.load(write(write_yaml(config.to_dict()))) == config
    assert JobConfig.model_validate({**journaled, "dataset": "none"}) == config
    assert JobConfig.load(write(write_yaml(config.to_dict())), ["dataset.kind=mnist"]).dataset.kind == "mnist"
    with pytest.raises(ConfigError, match="the run has 'digits', the config says None"):
        config.check_continues(JobConfig.load(write(GOOD)))


def test_an_estimator_that_needs_a_dataset_refuses_none(write):
    with pytest.raises(ConfigError) as caught:
        JobConfig.load(write(GOOD), ["dataset=none", "estimator=train"])
    assert str(caught.value) == "job.yaml: dataset: estimator 'train' needs one"


def test_a_dataset_for_another_task_is_refused(write):
    with pytest.raises(ConfigError) as caught:
        JobConfig.load(write(GOOD), ["dataset={kind: penn_treebank, root: ptb}", "estimator=train_language_model"])
    assert str(caught.value) == "job.yaml: space: 'layerwise_cnn' is for images, dataset 'penn_treebank' is text"


def test_the_schema_knows_every_kind_and_option():
    schema = job_schema()
    text = json.dumps(schema)
    for word in ("layerwise_cnn", "reinforce", "simulated", "digits", "parameter_shards", "max_children"):
        assert f'"{word}"' in text
    assert schema["additionalProperties"] is False
    words = {name: schema["properties"][name]["anyOf"][-1]["enum"] for name in ("dataset", "estimator", "retrain")}
    assert {"digits", "none", None} <= set(words["dataset"])
    assert None in words["retrain"]
    assert None not in words["estimator"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads_and_is_listed(path):
    config = JobConfig.load(path)
    assert config.name == path.stem
    assert f"`{path.name}`" in (CONFIGS / "README.md").read_text()


def test_the_config_in_the_readme_loads(write):
    readme = (CONFIGS.parent / "README.md").read_text()
    (snippet,) = re.findall(r"```yaml\n(.*?)```", readme, re.S)
    assert JobConfig.load(write(snippet)).budget.max_children == 60


def test_the_papers_topology_is_the_papers():
    config = JobConfig.load(CONFIGS / "nas_rl_cifar10.yaml")
    t = config.topology
    assert (t.parameter_shards, t.controller_replicas, t.children_per_replica) == (20, 100, 8)
    assert config.budget.max_children == 12_800
    assert config.strategy.optimizer.learning_rate == 0.0006
    assert config.judge(Evaluation({"accuracy": 0.9})).reward == pytest.approx(0.729)


@pytest.mark.parametrize("absent", ["none", "None", None, {"kind": "none"}])
def test_a_dataset_may_be_left_out_in_every_spelling(simulated_job, absent):
    assert JobConfig.from_dict({**simulated_job().to_dict(), "dataset": absent}).dataset is None


def test_a_part_of_a_stage_that_is_wrong_names_its_stage(simulated_job):
    stages = [{"name": "a"}, {"name": "b", "dataset": "none", "estimator": {"kind": "train", "epochz": 3}}]
    with pytest.raises(ConfigError) as caught:
        JobConfig.from_dict({**simulated_job().to_dict(), "finalize": stages})
    dataset, estimator = str(caught.value).splitlines()
    assert dataset.startswith("config: finalize.1.dataset.kind: unknown dataset 'none'")
    assert estimator.startswith("config: finalize.1.estimator.epochz: unknown key; did you mean 'epochs'?")
