"""Every search space on disk."""

import pytest

from nas_cluster.core.component import find_component, known_kinds
from nas_cluster.spaces import SearchSpace
from nas_cluster.testing import check_space

SMALL = {
    "enas_micro": {"child": {"filters": 4, "layers": 3}},
    "enas_recurrent": {"child": {"hidden_size": 20}},
    "nasnet_cell": {"child": {"filters": 8, "num_cells": 1}},
    "memory_bank": {"unit": 4, "max_units": 2, "width": 2, "depth": 2, "groups": (1, 2), "max_ops": 2, "max_kernel": 5},
}


@pytest.mark.parametrize("kind", known_kinds(SearchSpace))
def test_conformance(kind):
    check_space(find_component(SearchSpace, kind)(**SMALL.get(kind, {})))


@pytest.mark.parametrize("kind", known_kinds(SearchSpace))
def test_published_architectures_survive_json(kind):
    space = find_component(SearchSpace, kind)
    for architecture in space.named().values():
        assert space.architecture_type.model_validate(architecture.to_json()) == architecture
