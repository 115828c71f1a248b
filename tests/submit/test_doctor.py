"""What the doctor says about what a cluster has answered."""

from nas_cluster.doctor import findings

NODE = {
    "address": "10.0.0.1",
    "resources": {"CPU": 8.0, "GPU": 2.0},
    "error": "",
    "versions": {"ray": "2.0", "torch": "1.0", "python": "3.11.1"},
    "gpus": ["A100", "A100"],
    "clock_seconds": 0.002,
}


def levels(**changes):
    data = {"nodes": [NODE], "authentication": True, **changes}
    return {what: (level, words) for level, what, words in findings(data)}


def test_a_healthy_cluster():
    found = levels(
        storage={"path": "s3://b", "shared": "s3://b is shared by 1 node(s)"},
        room={"at_once": 8, "wanted": 16, "resources": {"CPU": 1, "GPU": 0.25}},
    )
    assert found["nodes"] == ("ok", "1 with 8 CPU and 2 GPU")
    assert found["GPUs"] == ("ok", "2 A100; Ray counts 2")
    assert found["room"] == ("ok", "8 children at once of 16 wanted, each CPU 1, GPU 0.25")
    assert found["storage"][0] == found["authentication"][0] == found["clocks"][0] == "ok"
    assert found["ray"][0] == "warning", "another version than here"


def test_what_is_wrong_is_said():
    other = {
        **NODE,
        "address": "10.0.0.2",
        "versions": {**NODE["versions"], "torch": "missing"},
        "clock_seconds": -40.0,
    }
    silent = {**NODE, "address": "10.0.0.3", "error": "did not answer in 60 s", "versions": None, "gpus": []}
    found = levels(
        nodes=[NODE, other, silent],
        authentication=False,
        storage={"path": "/data", "reason": "storage_path: /data is not shared by all nodes"},
        room={"at_once": 0, "reason": "a child asks for {GPU: 8}", "wanted": 4, "resources": {"GPU": 8}},
    )
    assert found["10.0.0.3"] == ("error", "did not answer in 60 s")
    assert found["torch"][0] == "error"
    assert found["clocks"] == ("warning", "at most 40.000 s apart")
    assert found["authentication"][0] == found["GPUs"][0] == "warning"
    assert found["storage"] == ("error", "/data is not shared by all nodes")
    assert found["room"] == ("error", "a child asks for {GPU: 8}")
