"""Searches that many tests run, and what two equal ones must have in common."""

import dataclasses
import faulthandler
import multiprocessing
import os

from nas_cluster import job

FORK = multiprocessing.get_context("fork")

SMALL = {"kind": "lstm", "layers": 1, "hidden_size": 12}
PPO = {"kind": "ppo", "learning_rate": 0.01, "controller": SMALL}
EVOLUTION = {"kind": "regularized_evolution", "population": 15, "tournament": 4}
LEARNERS = {
    "reinforce": {},
    "ppo": {"strategy": {**PPO, "epochs": 3, "ratio": "token"}, "topology": {"snapshot_every": 2}},
    "ppo_control": {
        "strategy": {**PPO, "epochs": 2},
        "control": {"share": 0.8},
        "topology": {"children_per_replica": 1},
    },
    "evolution": {"strategy": EVOLUTION},
    "evolution_control": {"strategy": EVOLUTION, "control": {"share": 0.3}},
}
"""What replaces `simulated_job`'s sections. PPO's snapshots fall between epochs; in `ppo_control` most minibatches, and
some rounds, hold controls only."""


def search(config):
    outcome = job.execute(config, local=True)
    assert outcome.ended not in ("stopped", "interrupted"), f"nothing here asks a search to stop: {outcome.reason}"
    return outcome, job.load_run(f"{config.storage_path}/{config.name}")


@dataclasses.dataclass(frozen=True)
class Trace:
    """What `trace` gives; two that differ are shown by their first difference (conftest.py)."""

    records: dict
    """From (update, replica, index of a child or -1 for the minibatch itself) to names and values."""
    run: str = dataclasses.field(compare=False)
    """How the run ended and what happened to it, for who reads why two differ."""

    def difference(self, other):
        """Lines that say where two traces differ first."""
        lines = [f"{trace.run}: {len(trace.records)} records" for trace in (self, other)]
        for place in sorted({*self.records, *other.records}):
            one, two = self.records.get(place), other.records.get(place)
            if one != two:
                update, replica, index = place
                what = "the minibatch" if index < 0 else f"child {index}"
                lines.append(f"first at update {update}, replica {replica}, {what}:")
                if one is None or two is None:
                    return [*lines, f"  only the {'second' if one is None else 'first'} has it"]
                return lines + [f"  {name}: {one[name]!r} != {two[name]!r}" for name in one if one[name] != two[name]]
        return lines


def trace(record):
    """Everything that synchronous runs must have in common, bit by bit."""
    records = {
        (row.child.child_id.update, row.child.child_id.replica, row.child.child_id.index): {
            **{name: getattr(row.child, name) for name in ("number", "tokens", "key")},
            **{name: getattr(row, name) for name in ("arm", "log_prob", "step_log_probs", "reward")},
        }
        for row in record.children()
    }
    minibatch = ("controller_hash", "base_version", "scalars", "verdict", "learning_epochs")
    records |= {(b.update, b.replica, -1): {name: getattr(b, name) for name in minibatch} for b in record.batches()}
    happened = [f"{event.kind} {event.detail}" for event in record.events()]
    return Trace(records, f"{record.directory.name} {record.state()} {' '.join(happened)}".rstrip())


def gradients(config, record):
    """How many gradients the servers must have taken: `epochs` for each minibatch with a child to learn from."""
    learning = {(r.child.child_id.replica, r.child.child_id.update) for r in record.children() if r.arm == "search"}
    return len(learning) * config.strategy.learning_epochs


def with_topology(changes, **topology):
    return {**changes, "topology": {**changes.get("topology", {}), **topology}}


def session(config):
    """A session in a process of its own, made by FORK: a kill of its group takes every part at once."""
    os.setsid()
    faulthandler.dump_traceback_later(120, exit=True)  # one that stands still says where, and fails its test
    job.execute(config, local=True)
    faulthandler.cancel_dump_traceback_later()
