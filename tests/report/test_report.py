"""The report is one self-contained page, whatever the run holds."""

import math
import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from nas_cluster import job
from nas_cluster.core.drawing import Drawing, Edge, Node
from nas_cluster.core.evaluation import Child, ChildId, Evaluation, Report
from nas_cluster.report import write_report
from nas_cluster.report.arms import finding
from nas_cluster.report.drawing import _HEIGHT, _place, layers_of, svg_of
from nas_cluster.report.stages import stage_tables
from nas_cluster.spaces.layerwise_cnn import LayerwiseCNN
from nas_cluster.storage.journal import Journal
from nas_cluster.storage.rows import BatchRow, ChildRow

VOID = {"meta", "br", "hr", "img", "input", "link", "path", "rect", "use", "line", "circle"}


class Balanced(HTMLParser):
    """Fails on a tag that is not closed, or closed twice."""

    def __init__(self):
        super().__init__()
        self.open, self.text = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(directory):
    path = write_report(job.load_run(directory), directory / "report.html")
    text = path.read_text()
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?:https?:)?//", text), "no request leaves the page"
    assert "@import" not in text
    return text, " ".join(parser.text)


def test_a_finished_search(simulated_job, tmp_path):
    job.execute(simulated_job(estimator={"faults": {5: "exception"}}), local=True)
    html, text = page_of(tmp_path / "job")
    for part in ("Reward over children", "The best architectures", "Where the controller's probability went"):
        assert part in text
    assert "simulated exception" in text
    assert html.count('<svg class="drawing"') == 4
    assert "filter height" in text


def test_learning_curves_and_metrics_stand_by_name(simulated_job, tmp_path):
    _, text = page_of_job(simulated_job(), tmp_path)
    assert "Learning curves" not in text, "no child reported anything"
    estimator = {"reports": 4, "faults": {3: "exception"}}
    minimised = {"objectives": {"seconds": "min"}, "failures": {"reward": -10}}
    html, text = page_of_job(simulated_job(name="told", estimator=estimator, **minimised), tmp_path)
    assert "Learning curves" in text
    assert "best seconds" in text
    assert '<th class="n">seconds</th><th class="n">accuracy</th>' in html, "further metrics have columns"
    assert re.search(r"accuracy as \d+ children reported it while training; the best \d+ in colour", text)
    assert "1: r" in html[html.index("Learning curves") :], "the best are named"


def page_of_job(config, tmp_path):
    job.execute(config, local=True)
    return page_of(tmp_path / config.name)


def test_the_stages_after_a_search_are_tables(simulated_job, tmp_path):
    noisy = {"kind": "simulated", "noise": 0.1}
    stages = [
        {"name": "grid", "top": 3, "seeds": 2, "estimator": noisy, "grid": {"target_seed": [0, 5]}},
        {"name": "winner", "seeds": 2, "test": True, "scale": {"padding": "centre"}},
    ]
    job.execute(simulated_job(finalize=stages), local=True)
    (grid, winner) = stage_tables(job.load_run(tmp_path / "job").trainings())
    assert [len(grid["lines"]), len(winner["lines"])] == [6, 1]
    assert {line["settings"] for line in grid["lines"]} == {"target_seed 0", "target_seed 5"}
    assert winner["lines"][0]["settings"] == "scale.padding centre"
    assert winner["lines"][0]["source"] == grid["lines"][0]["source"], "the best of one stage goes on to the next"
    assert all("±" in line["validation"] and line["test"] == "-" for line in grid["lines"])
    assert "±" in winner["lines"][0]["test"]
    _, text = page_of(tmp_path / "job")
    assert "After the search: grid" in text
    assert "After the search: winner" in text


def test_a_control_arm_is_compared_with_the_search(simulated_job, tmp_path):
    page = {"control": {"share": 0.25}, "estimator": {"faults": {6: "exception"}}}
    job.execute(simulated_job(name="long", budget={"max_children": 60}, **page), local=True)
    html, text = page_of(tmp_path / "long")
    assert "Controller against random" in text
    assert "Mann-Whitney U, one-sided, p" in text
    assert re.search(r"<td>reinforce</td><td class=\"n\">45</td>", html)
    assert re.search(r"<td>random</td><td class=\"n\">15</td>", html)
    strategy = {"kind": "regularized_evolution", "population": 10}
    job.execute(simulated_job(name="short", strategy=strategy, budget={"max_children": 18}, **page), local=True)
    _, text = page_of(tmp_path / "short")
    assert "Search against random" in text
    assert "Too few children to tell: the second half of the run has 7 of the search and 2 random ones" in text
    job.execute(simulated_job(name="none"), local=True)
    assert "against random" not in page_of(tmp_path / "none")[1]


def test_the_verdict_on_two_arms():
    rng = np.random.default_rng(0)
    good, bad = (rng.normal(mean, 0.1, 40).tolist() for mean in (0.8, 0.6))
    assert finding(good, bad).startswith("In the second half of the run the search's children have larger rewards")
    assert f"{np.median(good):.4f} of 40 and {np.median(bad):.4f} of 40 children" in finding(good, bad)
    assert "p < 0.0001" in finding(good, bad)
    assert "is not shown" in finding(bad, good)
    assert "is not shown" in finding([0.5] * 20, [0.5] * 9), "equal rewards"
    assert finding(good[:7], bad).startswith("Too few children to tell")
    # without overlap the exact p is one over the number of ways to choose 8 of 16
    assert "p < 0.0001" in finding([8.0 + i for i in range(8)], [float(i) for i in range(8)])
    assert f"p = {2 / math.comb(16, 8):.2g}" in finding([7.5, *range(9, 16)], [*range(7), 8.0])


def test_an_empty_run_and_one_that_only_failed(simulated_job, tmp_path):
    directory = job.prepare(simulated_job(name="empty"))
    assert "No child has been scored yet" in page_of(directory)[1]
    config = simulated_job(name="failed", estimator={"fault_rate": 1.0}, budget={"max_children": 12})
    job.execute(config, local=True)
    assert "12" in page_of(tmp_path / "failed")[1]


def test_hostile_text_is_escaped(simulated_job, tmp_path):
    directory = job.prepare(simulated_job(name="hostile"))
    with Journal.open(directory) as journal:
        config = journal.config
        config["space"]["kind"] = "<script>alert(1)</script>:X"
        journal.set_config(config, "<img src=x onerror=alert(2)>")
    html, _ = page_of(directory)
    assert "<script" not in html
    assert "<img" not in html


@pytest.mark.slow
def test_the_papers_12800_children_stay_a_page(simulated_job, tmp_path):
    directory = job.prepare(simulated_job(name="large"))
    space = LayerwiseCNN(layers=3)
    rng = np.random.default_rng(0)
    sampled = [space.random(rng) for _ in range(100)]
    networks = [(tokens, space.decode(tokens).to_json()) for tokens in sampled]
    scalars = {"entropy": 1.0, "baseline": 0.5, "loss": 0.1, "gradient_norm": 1.0}
    with Journal.open(directory) as journal, journal.transaction():
        for update in range(1600):
            rows = []
            for index in range(8):
                number = update * 8 + index
                child = Child(ChildId(0, update, index), number, *networks[number % 100], str(number), 0)
                rows.append(ChildRow(child, -1.0, 1.0, planned_at=float(number)))
            journal.plan(BatchRow(0, update, update, "h", float(update)), rows)
            for row in rows:
                n = row.child.number
                metric = float(rng.random())
                score = Evaluation({"accuracy": metric, "seconds": 1.0})
                about = {"metric": metric, "reward": metric, "started_at": float(n), "finished_at": n + 5.0}
                curve = [Report(step, {"accuracy": metric * step / 5}, float(step)) for step in range(1, 6)]
                journal.done(replace(row, evaluation=score, worker="w", attempts=1, **about), curve)
            journal.applied(0, update, applied_at=update, staleness=1, verdict="applied", scalars=scalars)
    started = time.perf_counter()
    html, text = page_of(directory)
    assert time.perf_counter() - started < 20
    assert len(html) < 1_500_000
    assert "accuracy as 300 of 12,800 children reported it while training; the best 10 in colour" in text


def random_drawing(rng, nodes):
    made = tuple(Node(str(i), f"label {'x' * int(rng.integers(12))}", "conv") for i in range(nodes))
    edges = tuple(Edge(str(a), str(b)) for b in range(nodes) for a in range(b) if rng.random() < 0.4)
    return Drawing(made, edges)


@pytest.mark.parametrize("nodes", [1, 2, 5, 12, 40])
def test_boxes_do_not_overlap_and_every_edge_is_drawn(nodes):
    rng = np.random.default_rng(nodes)
    for _ in range(10):
        drawing = random_drawing(rng, nodes)
        boxes = list(_place(drawing).values())
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                apart = a.right <= b.x or b.right <= a.x or a.y + _HEIGHT <= b.y or b.y + _HEIGHT <= a.y
                assert apart
        layer = layers_of(drawing)
        assert all(layer[e.source] < layer[e.target] for e in drawing.edges)
        svg = svg_of(drawing)
        assert svg.count('class="edge') == len(drawing.edges)
        assert svg.count("<rect") == nodes
