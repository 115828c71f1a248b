"""How the runs of this folder were made. Run with the package at 0.1.0 (commit 9a98dad), and never with a later one:

    OMP_NUM_THREADS=1 python tests/storage/runs_0_1_0/make.py [NAME ...]

For each name a run that ended in the middle (NAME.tar.gz: its directory, but for the files that only that computer
needs), and what it must come to when it goes on (NAME.json): from the same job, run without a break.
"""

import contextlib
import gzip
import io
import json
import os
import signal
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import traces

import nas_cluster
from nas_cluster.cli import main
from nas_cluster.core.errors import RunStopped

HERE = Path(__file__).parent
KEPT = ("config.yaml", "journal.sqlite", "snapshots", "shared")

SMALL = {"kind": "lstm", "layers": 1, "hidden_size": 6}
REINFORCE = {"kind": "reinforce", "learning_rate": 0.01, "controller": SMALL}
LAYERS = {"kind": "layerwise_cnn", "layers": 3, "filters": [4, 8, 16]}
TINY = {"kind": "layerwise_cnn", "layers": 2, "filters": [8, 16], "skip_connections": False}
TINY |= {"filter_heights": [1, 3], "filter_widths": [1, 3]}
FIGURE_3 = {"parameter_shards": 2, "controller_replicas": 2, "children_per_replica": 2, "snapshot_every": 3}
ONE_REPLICA = {"controller_replicas": 1, "children_per_replica": 2, "snapshot_every": 2}
SLOW = {"kind": "simulated", "duration": {"seconds": 0.1, "sigma": 0.5}}
IMAGES = {"batch_size": 32, "training_images": 320, "validation": 200, "crop_padding": 0, "precision": "float32"}
TEXT = {"kind": "text_files", "level": "character", "limit": 4000}
TEXT |= {part: f"text/{part}.txt" for part in ("train", "validation", "test")}
PHASES = {"epochs": 3, "updates": 2}
BANKS = {"kind": "memory_bank", "unit": 2, "max_units": 2, "width": 2, "depth": 2, "groups": [1, 2], "max_kernel": 3}
BANKS |= {"max_ops": 2, "hypernet": {"first": 2, "growth": 2, "layers": [2, 1]}, "child": {"stem_kernel": 3}}

JOBS = {
    "nas_rl_cnn": {"estimator": {"kind": "simulated", "faults": {5: "exception", 20: "diverged"}}},
    "nas_rl_real": {"estimator": {"kind": "train", "epochs": 1, "reward": "accuracy_cubed", **IMAGES}},
    "nas_rl_recurrent": {"space": {"kind": "recurrent_tree", "base": 4}, "estimator": SLOW},
    "nasnet": {
        "space": {"kind": "nasnet_cell", "blocks": 2},
        "strategy": {**REINFORCE, "kind": "ppo", "epochs": 2},
        "control": {"share": 0.3},
    },
    "enas_micro": {
        "space": {"kind": "enas_micro", "nodes": 2, "child": {"layers": 1, "filters": 2, "stem_multiplier": 1}},
        "estimator": {"kind": "shared_weights", **PHASES, **IMAGES},
        "topology": {**ONE_REPLICA, "slots": 2},
    },
    "enas_macro": {
        "space": {"kind": "enas_macro", "layers": 3, "child": {"filters": 4}},
        "strategy": {**REINFORCE, "skip_prior": {"rate": 0.4, "weight": 0.1}},
        "estimator": {"kind": "shared_weights", **PHASES, **IMAGES},
        "topology": ONE_REPLICA,
    },
    "enas_recurrent": {
        "dataset": TEXT,
        "space": {"kind": "enas_recurrent", "nodes": 3, "child": {"hidden_size": 8}},
        "estimator": {"kind": "shared_language_model", **PHASES, "batch_size": 8, "sequence_length": 20},
        "topology": ONE_REPLICA,
    },
    "smash": {
        **{"space": BANKS, "strategy": {"kind": "perturb", "random": 6, "perturbed": 4}, "topology": ONE_REPLICA},
        "estimator": {"kind": "hypernetwork", "epochs": 2, **IMAGES},
    },
    "asynchronous": {
        "mode": "asynchronous",
        **{"space": TINY, "estimator": SLOW, "topology": {**FIGURE_3, "controller_replicas": 3, "max_staleness": 3}},
    },
    "evolution": {  # one child at a time, so that it is certain which one answers another from the cache
        "space": TINY,
        "strategy": {"kind": "regularized_evolution", "population": 10, "tournament": 3},
        "topology": {"snapshot_every": 3},
    },
    "finalized": {
        "finalize": [{"name": "rerank", "top": 4, "seeds": 2}, {"name": "winner", "seeds": 2, "test": True}],
        "retrain": {"kind": "simulated", "noise": 0.1},
    },
}
ENDS = {"nas_rl_cnn": (25, 46), "nas_rl_real": (7, 12), "enas_micro": (7, 12), "enas_macro": (7, 12)}
ENDS |= {"enas_recurrent": (7, 12), "smash": (9, 16), "asynchronous": (10, 60), "finalized": (20, 20)}
"""After how many children a run ends in the middle, and how many there are in the end."""
STOPPED = ("nas_rl_recurrent", "asynchronous")
"""Stopped by SIGTERM with children in flight; the others have used a smaller budget, some within a round."""


def job(name, children):
    base = {"name": name, "seed": 1, "mode": "synchronous", "space": LAYERS, "strategy": REINFORCE}
    base |= {"estimator": {"kind": "simulated"}, "topology": FIGURE_3, "storage_path": "runs"}
    return nas_cluster.JobConfig.from_dict({**base, **JOBS[name], "budget": {"max_children": children}})


def run(name, children, stop_after=None):
    """Search in this process, in a fresh folder, which is the present one afterwards; the run's directory."""
    os.chdir(tempfile.mkdtemp())
    Path("text").symlink_to(HERE / "text")

    def watch(progress):
        if stop_after is not None and progress.children_done >= stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    with contextlib.suppress(RunStopped):
        nas_cluster.run(job(name, children), local=True, on_progress=watch)
    if name == "finalized":
        with contextlib.suppress(SystemExit):
            main(["retrain", f"runs/{name}", "--local", "-k", "2"])
    return Path("runs") / name


def pack(directory):
    """Say nothing of the computer, and make the same archive of the same files."""
    with contextlib.closing(sqlite3.connect(directory / "journal.sqlite", isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = ON")
        db.execute("UPDATE sessions SET host = 'host'")
        db.execute("UPDATE phases SET path = 'shared/' || substr(path, -17)")  # 00000.safetensors
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in [path for path in files if path.relative_to(directory).parts[0] in KEPT]:
            content = path.read_bytes()
            assert not [place for place in (Path.cwd(), HERE) if bytes(place) in content], path
            entry = tarfile.TarInfo(str(path.relative_to(directory.parent)))
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    (HERE / f"{directory.name}.tar.gz").write_bytes(gzip.compress(archive.getvalue(), mtime=0))


for name in sys.argv[1:] or JOBS:
    middle, end = ENDS.get(name, (14, 30))
    broken = run(name, end, stop_after=middle) if name in STOPPED else run(name, middle)
    expected = {"computer": traces.computer(), "simulated": job(name, end).estimator.kind == "simulated"}
    expected |= {"max_children": end, "counts": nas_cluster.load_run(broken).counts()}
    pack(broken)
    whole = broken if name == "asynchronous" else run(name, end)  # no two asynchronous runs are equal
    expected |= traces.trace(whole)
    (HERE / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n")
