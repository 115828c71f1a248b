"""Two tiny spaces whose children share weights: an architecture picks one of three operations."""

from nas_cluster.core.decisions import Decision, DecisionSpec
from nas_cluster.core.task import LanguageTask
from nas_cluster.spaces import Architecture, SearchSpace

OPERATIONS = 3


class Picked(Architecture):
    operation: int


class PickImages(SearchSpace[Picked]):
    """Images: one of three convolutions, then a classifier that all share."""

    architecture_type = Picked
    shares_weights = True

    def decisions(self):
        return DecisionSpec([Decision("operation", "choice", OPERATIONS, "operation")])

    def decode(self, tokens):
        return Picked(operation=self.decisions().check(tokens)[0])

    def encode(self, architecture):
        return (architecture.operation,)

    def build_child(self, architecture, task):
        return image_network(task, [architecture.operation])

    def build_shared(self, task):
        return image_network(task, range(OPERATIONS))


class PickText(PickImages):
    """Text: one of three recurrent layers, embedding and decoder shared."""

    understands = (LanguageTask,)

    def build_child(self, architecture, task):
        return text_network(task, [architecture.operation])

    def build_shared(self, task):
        return text_network(task, range(OPERATIONS))


def image_network(task, operations):
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            convolutions = {str(k): nn.Conv2d(task.channels, 8, 3 + 2 * k, padding=1 + k) for k in operations}
            self.operations = nn.ModuleDict(convolutions)
            self.head = nn.Linear(8, task.classes)

        def forward(self, images, architecture=None):
            chosen = self.operations[str(architecture.operation if architecture else next(iter(operations)))]
            return self.head(torch.relu(chosen(images)).amax((2, 3)))

        def tensors_of(self, architecture):
            return tensors(self, architecture)

    return Network()


def text_network(task, operations):
    from torch import nn

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(task.vocabulary, 8)
            self.operations = nn.ModuleDict({str(k): nn.GRU(8, 8) for k in operations})
            self.decoder = nn.Linear(8, task.vocabulary)

        def initial_state(self, columns):
            return (self.decoder.weight.new_zeros(1, columns, 8),)

        def forward(self, tokens_TB, state, architecture=None):
            chosen = self.operations[str(architecture.operation if architecture else next(iter(operations)))]
            features_TBE, last = chosen(self.embedding(tokens_TB), state[0])
            return features_TBE, (last,)

        def tensors_of(self, architecture):
            return tensors(self, architecture)

    return Network()


def tensors(network, architecture):
    part = f"operations.{architecture.operation}."
    return {n: p for n, p in network.named_parameters() if not n.startswith("operations.") or n.startswith(part)}
