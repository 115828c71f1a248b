"""Somebody's own task: regression on a table. Task, arrays, dataset, space and estimators, none of which the package
knows."""

import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nas_cluster.core.decisions import Decision, DecisionSpec
from nas_cluster.core.errors import DataError
from nas_cluster.core.evaluation import Evaluation
from nas_cluster.core.task import Task
from nas_cluster.datasets import Arrays, Dataset
from nas_cluster.estimators import Estimator
from nas_cluster.spaces import Architecture, SearchSpace

WIDTHS = (4, 16)


@dataclass(frozen=True)
class TableTask(Task):
    """A child maps rows (N, features) to one number each (N)."""

    word: ClassVar[str] = "tables"

    features: int

    def __str__(self):
        return f"tables of {self.features} columns"

    def run_example(self, model, batch=1):
        import torch

        return (model(torch.randn(batch, self.features)),)


@dataclass(frozen=True)
class TableArrays(Arrays):
    unit = "rows"

    rows: np.ndarray
    targets: np.ndarray
    columns: list

    @property
    def task(self):
        return TableTask(features=len(self.columns))

    @property
    def training_examples(self):
        return len(self.rows)

    def check(self, where):
        if self.rows.shape != (len(self.targets), len(self.columns)):
            raise DataError(f"{where}: rows are {self.rows.shape}")
        return self


class Tables(Dataset):
    task_type = TableTask
    arrays_type = TableArrays

    rows: int = 64

    def load(self):
        rows = np.random.default_rng(0).standard_normal((self.rows, 3)).astype(np.float32)
        return TableArrays(rows, rows @ np.float32([1, -2, 3]), ["a", "b", "c"])

    def identity(self):
        return {"kind": self.kind, "rows": self.rows}


class Width(Architecture):
    width: int


class TableSpace(SearchSpace[Width]):
    architecture_type = Width
    understands = (TableTask,)

    def decisions(self):
        return DecisionSpec([Decision("width", "choice", len(WIDTHS), "width")])

    def decode(self, tokens):
        return Width(width=WIDTHS[self.decisions().check(tokens)[0]])

    def encode(self, architecture):
        return (WIDTHS.index(architecture.width),)

    def build_child(self, architecture, task):
        from torch import nn

        return nn.Sequential(
            nn.Linear(task.features, architecture.width), nn.ReLU(), nn.Linear(architecture.width, 1), nn.Flatten(0)
        )


class Regress(Estimator):
    """A few steps on the job's table."""

    understands = (TableTask,)
    metric_name = "fit"

    steps: int = 5

    def open(self, context):
        return _Regression(self, context, context.arrays(TableArrays))

    def forward_passes(self, data):
        return self.steps * 3 * data.training_examples


class RegressOwn(Regress):
    """The same on a table that the estimator brings."""

    uses_data = False

    def open(self, context):
        assert context.dataset is None
        return _Regression(self, context, Tables(rows=32).load())

    def child_task(self, task):
        assert task is None
        return TableTask(features=3)

    def forward_passes(self, data):
        assert data is None
        return self.steps * 3 * 32


class _Regression:
    def __init__(self, settings, context, data):
        self.settings, self.context, self.data = settings, context, data

    def evaluate(self, child):
        import torch

        started = time.perf_counter()
        torch.manual_seed(child.seed)
        space = self.context.space
        model = space.build_child(space.parse(child.architecture), self.data.task)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        rows, targets = torch.tensor(np.array(self.data.rows)), torch.tensor(np.array(self.data.targets))
        for _ in range(self.settings.steps):
            optimizer.zero_grad()
            loss = (model(rows) - targets).square().mean()
            loss.backward()
            optimizer.step()
        parameters = sum(p.numel() for p in model.parameters())
        seconds = time.perf_counter() - started
        return Evaluation({"fit": 1 / (1 + loss.item()), "seconds": seconds, "parameters": parameters})
