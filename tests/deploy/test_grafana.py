"""The dashboard: loads, and asks for metrics that the package registers."""

import json
import re

from deploy_files import DEPLOY

from nas_cluster.cluster.on_ray.metrics import METRICS

DASHBOARD = json.loads((DEPLOY / "grafana" / "nas_cluster.json").read_text())


def test_every_panel_asks_for_metrics_that_the_package_registers():
    asked = set()
    for panel in DASHBOARD["panels"]:
        found = [set(re.findall(r"ray_nas_cluster_(\w+)", target["expr"])) for target in panel["targets"]]
        assert all(found), panel["title"]
        asked |= set.union(*found)
    assert asked <= set(METRICS), "a panel of nothing stays empty"
    assert {"children", "reward", "entropy", "baseline", "staleness", "shard_version"} <= asked


def test_panels_do_not_overlap_and_are_told_apart():
    places = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places
        assert max(x for x, _ in cells) < 24
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")")
            assert target["expr"].count("{") == target["expr"].count("}")
