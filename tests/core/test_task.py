"""Tasks: how they are said, and a child run once on an example of each."""

import pytest
import torch
from shared_spaces import Picked, PickImages, PickText
from tabular import TableSpace, TableTask, Width

from nas_cluster.core.errors import ConfigError
from nas_cluster.core.task import ImageTask, LanguageTask, Task, words_of

CHILDREN = {
    ImageTask(8, 9, 1, 10): (PickImages(), Picked(operation=0), [(3, 10)]),
    LanguageTask(50): (PickText(), Picked(operation=1), [(1, 3, 50), (1, 3, 8)]),
    TableTask(features=5): (TableSpace(), Width(width=4), [(3,)]),
}


@pytest.mark.parametrize("task", CHILDREN, ids=str)
def test_a_child_is_run_on_an_example_wherever_torch_is_told_to_be(task):
    space, architecture, shapes = CHILDREN[task]
    assert [tuple(part.shape) for part in task.run_example(space.build_child(architecture, task), batch=3)] == shapes
    with torch.device("meta"):
        parts = task.run_example(space.build_child(architecture, task), batch=3)
    assert [tuple(part.shape) for part in parts] == shapes
    assert all(part.is_meta for part in parts)


def test_a_size_is_that_of_one_example():
    """Counted by hand: weights and biases, and two operations for a multiplication with its addition."""
    assert TableSpace().size_of(Width(width=4), TableTask(5)) == (5 * 4 + 4 + 4 + 1, 2 * (5 * 4 + 4))
    parameters, flops = PickImages().size_of(Picked(operation=0), ImageTask(8, 8, 1, 10))
    assert (parameters, flops) == (8 * 9 + 8 + 80 + 10, 2 * (64 * 8 * 9 + 80))


def test_counting_a_size_draws_no_random_number():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch.device("meta"):
        ImageTask(8, 8, 1, 10).run_example(torch.nn.Identity())
        LanguageTask(5).run_example(PickText().build_child(Picked(operation=0), LanguageTask(5)))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("kind", "text", "task"),
    [(ImageTask, "28x20x1/7", ImageTask(28, 20, 1, 7)), (LanguageTask, "300", LanguageTask(300))],
)
def test_a_task_is_written_in_a_word(kind, text, task):
    assert kind.parse(text) == task
    with pytest.raises(ConfigError, match=f"--task '1': this space is for {kind.word}; write"):
        kind.parse("1")


def test_a_task_of_ones_own_says_what_it_has_not():
    assert (TableTask.examples(), TableTask.usual()) == ((), None)
    with pytest.raises(ConfigError, match="--task '3': this space is for tables, and such a task cannot be written"):
        TableTask.parse("3")
    assert words_of((ImageTask, TableTask)) == "images or tables"
    with pytest.raises(TypeError, match="abstract"):
        Task()
