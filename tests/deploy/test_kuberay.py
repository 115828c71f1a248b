"""KubeRay's manifests: valid by Kubernetes' and KubeRay's schemas, restricted, and naming only what exists here."""

import jsonschema
import pytest
from deploy_files import DEPLOY, HEALTH, check_command, documents, find, foreign_schema, images

FILES = sorted((DEPLOY / "kuberay").glob("*.yaml"))
OBJECTS = [document for path in FILES for document in documents(path)]
RAY = {document["kind"]: document for document in OBJECTS if document["apiVersion"] == "ray.io/v1"}
CLUSTERS = {"RayCluster": RAY["RayCluster"]["spec"], "RayJob": RAY["RayJob"]["spec"]["rayClusterSpec"]}
KUBERNETES = "1.34"

each_cluster = pytest.mark.parametrize("cluster", CLUSTERS.values(), ids=CLUSTERS)


def pods(cluster):
    """Pod specs of the head and of every worker group."""
    groups = {"head": cluster["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def all_pods():
    found = [pod for cluster in CLUSTERS.values() for pod in pods(cluster).values()]
    return [*found, RAY["RayJob"]["spec"]["submitterPodTemplate"]["spec"]]


def containers():
    return [container for pod in all_pods() for container in pod["containers"]]


def test_what_is_here():
    kinds = sorted(document["kind"] for document in OBJECTS)
    assert kinds == sorted(
        ["Namespace", "ServiceAccount", "PersistentVolumeClaim", *["NetworkPolicy"] * 3, "RayCluster", "RayJob"]
    )
    namespaced = [document for document in OBJECTS if document["kind"] != "Namespace"]
    assert {document["metadata"]["namespace"] for document in namespaced} == {"nas-cluster"}


def test_objects_are_valid_by_kubernetes_own_schemas():
    kubernetes = pytest.importorskip("kubernetes_validate", reason="needs the package kubernetes-validate")
    plain = [document for document in OBJECTS if document["apiVersion"] != "ray.io/v1"]
    pods_as_objects = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod} for pod in all_pods()
    ]
    for document in [*plain, *pods_as_objects]:
        kubernetes.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("kind", RAY)
def test_objects_are_valid_by_kuberays_schemas(kind):
    schema = foreign_schema(f"{kind.lower()}-v1.strict.schema.json")
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(RAY[kind]))
    assert not errors, [f"{list(error.path)}: {error.message[:200]}" for error in errors]


@each_cluster
def test_the_head_does_no_work_and_gpu_workers_come_when_asked_for(cluster):
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in head["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert cluster["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    gpu = groups["gpu"]
    assert (gpu["minReplicas"], gpu["replicas"]) == (0, 0)
    assert gpu["maxReplicas"] >= 1
    tolerated = {toleration["key"] for toleration in gpu["template"]["spec"]["tolerations"]}
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= tolerated
    for resources in find(gpu["template"], "resources"):
        assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == "1"


@each_cluster
def test_authentication_and_health_checks_are_on_in_every_pod(cluster):
    assert cluster["authOptions"]["mode"] == "token"
    for name, pod in pods(cluster).items():
        environment = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
        assert HEALTH.items() <= {key: int(value) for key, value in environment.items() if value.isdigit()}.items(), (
            name
        )


def test_pods_meet_the_restricted_standard():
    """https://kubernetes.io/docs/concepts/security/pod-security-standards, the rows of `restricted`."""
    namespace = next(document for document in OBJECTS if document["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for pod in all_pods():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
        for volume in pod["volumes"]:
            assert volume.keys() - {"name"} <= allowed
    autoscalers = [cluster["autoscalerOptions"] for cluster in CLUSTERS.values()]
    for container in [*containers(), *autoscalers]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["runAsNonRoot"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"]["type"] == "RuntimeDefault"
        assert context["readOnlyRootFilesystem"] is True


def test_every_container_has_limits_and_every_mount_a_volume():
    for cluster in CLUSTERS.values():
        assert {"cpu", "memory"} <= cluster["autoscalerOptions"]["resources"]["limits"].keys()
    for pod in all_pods():
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][kind].keys()
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}  # the root is read-only


def test_images_and_volumes_exist():
    assert {container["image"] for container in containers()} == images()
    claims = {d["metadata"]["name"] for d in OBJECTS if d["kind"] == "PersistentVolumeClaim"}
    assert set(find([pod["volumes"] for pod in all_pods()], "claimName")) == claims
    accounts = {d["metadata"]["name"] for d in OBJECTS if d["kind"] == "ServiceAccount"}
    assert {pod["serviceAccountName"] for pod in all_pods() if "serviceAccountName" in pod} == accounts
    for document in OBJECTS:
        if document["kind"] == "PersistentVolumeClaim":
            assert document["spec"]["accessModes"] == ["ReadWriteMany"]


def test_both_clusters_are_the_same_but_for_the_jobs_config():
    alone, of_job = (pods(cluster) for cluster in CLUSTERS.values())
    of_job["head"] = {
        **of_job["head"],
        "volumes": [volume for volume in of_job["head"]["volumes"] if volume["name"] != "job"],
        "containers": [
            {**container, "volumeMounts": [m for m in container["volumeMounts"] if m["name"] != "job"]}
            for container in of_job["head"]["containers"]
        ],
    }
    for pod in of_job.values():
        pod["volumes"] = [volume for volume in pod["volumes"] if volume["name"] != "job"]
        for container in pod["containers"]:
            container["volumeMounts"] = [m for m in container["volumeMounts"] if m["name"] != "job"]
    assert alone == of_job


def test_the_job_can_be_tried_again_and_goes_away():
    job = RAY["RayJob"]["spec"]
    check_command(job["entrypoint"])
    assert "storage_path=file:///shared/" in job["entrypoint"]  # a mirror on what all nodes share
    assert job["backoffLimit"] >= 1
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] > 0
    config = job["entrypoint"].split()[2]
    mounts = CLUSTERS["RayJob"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert any(config.startswith(mount["mountPath"] + "/") and mount["name"] == "job" for mount in mounts)


def test_nobody_gets_in_but_the_cluster_itself_the_operator_and_prometheus():
    policies = [document["spec"] for document in OBJECTS if document["kind"] == "NetworkPolicy"]
    closed = [policy for policy in policies if "ingress" not in policy and "egress" not in policy]
    assert closed == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]
    for policy in policies:
        for rule in policy.get("ingress", []):
            assert rule["from"], "an empty `from` would let everybody in"
            for source in rule["from"]:
                assert source == {"podSelector": {}} or source["namespaceSelector"]["matchLabels"]
