"""On a GPU: children are captured as graphs, what is shared is trained as on a CPU. Skipped where there is none."""

import numpy as np
import pytest
import torch

from nas_cluster.core.component import find_component, known_kinds
from nas_cluster.core.evaluation import Child, ChildId
from nas_cluster.core.phases import PhaseOrder, SharedState
from nas_cluster.core.task import ImageTask
from nas_cluster.datasets import train_validation_split
from nas_cluster.datasets.digits import Digits
from nas_cluster.datasets.python_docs import PythonDocs
from nas_cluster.estimators import Estimator, WorkerContext
from nas_cluster.spaces import SearchSpace
from nas_cluster.training.image_classifier import train_image_classifier
from nas_cluster.training.images import ImageStore
from nas_cluster.training.language_model import train_language_model
from nas_cluster.training.language_settings import LanguageSettings
from nas_cluster.training.settings import TrainingSettings
from nas_cluster.training.text import TextStore

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SPACES = known_kinds(SearchSpace)
SHARING = {
    "shared_weights": ["enas_macro", "enas_micro"],
    "hypernetwork": ["memory_bank"],
    "shared_language_model": ["enas_recurrent"],
}


def trained(space, precision, monkeypatch, *, graph=True):
    """A random child of the space, trained for some steps."""
    if not graph:
        monkeypatch.setattr("nas_cluster.training.step._WARM_UP_STEPS", -1)
    torch.manual_seed(0)
    architecture = space.decode(space.random(np.random.default_rng(0)))
    if ImageTask in space.understands:
        settings = TrainingSettings(epochs=2, batch_size=50, precision=precision, learning_rate=0.01, flip=False)
        data = Digits().load()
        training, validation = train_validation_split(data.y_train, 400, 0)
        store = ImageStore(data, training[:400], validation, settings, "cuda")
        model = space.build_child(architecture, store.task)
        return train_image_classifier(model, store, store.plan(0), settings)
    settings = LanguageSettings(epochs=2, batch_size=20, sequence_length=35, learning_rate=0.1)
    store = TextStore(PythonDocs(limit=10_000).load(), settings, "cuda")
    return train_language_model(space.build_child(architecture, store.task), store, settings)


@pytest.mark.parametrize("kind", SPACES)
def test_children_of_every_space_are_captured_and_train_as_they_do_step_by_step(kind, monkeypatch):
    space = find_component(SearchSpace, kind)()
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    captured = trained(space, "float32", monkeypatch)
    eager = trained(space, "float32", monkeypatch, graph=False)
    assert (captured.path, captured.notes, eager.path) == ("cuda_graph", [], "eager")
    assert captured.losses == pytest.approx(eager.losses, abs=1e-3)
    assert captured.losses[-1] < captured.losses[0]


@pytest.mark.parametrize("kind", SPACES)
def test_the_precision_of_this_card_learns_too(kind, monkeypatch):
    space = find_component(SearchSpace, kind)()
    result = trained(space, "auto", monkeypatch)
    assert (result.path, result.notes) == ("cuda_graph", [])
    assert result.losses[-1] < result.losses[0]


@pytest.mark.parametrize("kind", SHARING)
def test_what_is_shared_is_trained_as_on_a_cpu(kind, tmp_path):
    """The first steps in float32; then the scores of a child with the same tensors."""
    text = kind == "shared_language_model"
    settings = {
        "batch_size": 8,
        **({"validation_tokens": 2000} if text else {"validation": 200, "precision": "float32"}),
    }
    estimator = find_component(Estimator, kind)(epochs=2, learning_rate=0.1 if text else 0.001, **settings)
    for name in SHARING[kind]:
        space = find_component(SearchSpace, name)()
        rng = np.random.default_rng(0)
        tokens = tuple((space.random(rng),) for _ in range(2))
        results, scores = [], []
        for device in ("cpu", "cuda"):
            dataset = PythonDocs(limit=10_000) if text else Digits()
            evaluator = estimator.open(WorkerContext(space, dataset, 0, device))
            path = tmp_path / f"{device}.safetensors"
            results.append(evaluator.train_phase(PhaseOrder(0, tokens, None, str(path))))
            state = SharedState(0, str(tmp_path / "cpu.safetensors"), results[0].sha256)
            drawn = space.random(np.random.default_rng(1))
            child = Child(ChildId(0, 0, 0), 0, drawn, space.decode(drawn).to_json(), "", 0, shared=state)
            other = estimator.open(WorkerContext(space, dataset, 0, device))
            scores.append(other.evaluate(child).metrics["accuracy"])
        assert results[1].loss == pytest.approx(results[0].loss, rel=0.02)
        assert scores[1] == pytest.approx(scores[0], rel=0.02, abs=0.02)
