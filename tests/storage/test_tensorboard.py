"""What a run writes for TensorBoard: every child and every update once, also after a kill."""

import subprocess
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nas_cluster import job
from nas_cluster.storage.layout import TENSORBOARD
from nas_cluster.storage.tensorboard import TensorBoard


def points(directory, tag):
    read = EventAccumulator(str(directory / TENSORBOARD), size_guidance={"scalars": 0})
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(tag)]


def rewards(directory):
    return sorted((row.child.number, row.reward) for row in job.load_run(directory).children())


def rounded(pairs):
    return sorted((step, round(value, 5)) for step, value in pairs)


def test_every_child_and_every_update_is_there_once(simulated_job):
    config = simulated_job()
    job.execute(config, local=True)
    directory = job.prepare(config)
    assert rounded(points(directory, "children/reward")) == rounded(rewards(directory))
    assert [step for step, _ in points(directory, "controller/entropy")] == list(range(1, 21))
    best = [value for _, value in points(directory, "children/best_reward")]
    assert best == sorted(best)


def test_a_continued_run_goes_on_where_the_last_one_ended(simulated_job):
    job.execute(simulated_job(budget={"max_children": 30}), local=True)
    config = simulated_job(budget={"max_children": 60})
    job.execute(config, local=True)
    directory = job.prepare(config)
    assert len(list((directory / TENSORBOARD).iterdir())) == 2
    assert rounded(points(directory, "children/reward")) == rounded(rewards(directory))
    assert [step for step, _ in points(directory, "controller/entropy")] == list(range(1, 21))


def test_what_a_killed_session_did_not_write_the_next_one_does(simulated_job):
    config = simulated_job()
    job.execute(config, local=True)
    directory = job.prepare(config)
    for path in (directory / TENSORBOARD).iterdir():
        path.unlink()
    after = TensorBoard(directory)
    after.follow()
    after.follow()
    after.close()
    assert rounded(points(directory, "children/reward")) == rounded(rewards(directory))


def test_a_disk_that_takes_nothing_is_no_reason_to_end(simulated_job):
    config = simulated_job()
    directory = job.prepare(config)
    (directory / TENSORBOARD).write_text("in the way")
    assert job.execute(config, local=True).ended == "done"


def test_it_needs_no_torch():
    code = "import sys; import nas_cluster.storage.tensorboard; import tensorboard.compat.proto.event_pb2; "
    code += "import tensorboard.summary.writer.record_writer; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
