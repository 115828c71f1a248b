"""The dashboard: loads, and asks for metrics that the package registers."""

import json
import re

from deploy_files import DEPLOY

DASHBOARD = json.loads((DEPLOY / "grafana" / "nas_cluster.json").read_text())
METRICS = {
    "children",
    "reward_mean",
    "entropy",
    "baseline",
    "staleness",
    "shard_version",
    "cache_hits",
    "slot_utilisation",
    "gpu_seconds",
}


def test_every_metric_has_a_panel_and_every_panel_a_metric():
    asked = set()
    for panel in DASHBOARD["panels"]:
        found = [set(re.findall(r"ray_nas_cluster_(\w+)", target["expr"])) for target in panel["targets"]]
        assert all(found), panel["title"]
        asked |= set.union(*found)
    assert asked == METRICS


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
