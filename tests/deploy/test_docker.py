"""The Dockerfile: pinned, without root, and with install steps that work as they stand there."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from deploy_files import DOCKERFILE, ROOT


def instructions():
    """(instruction, argument) in order, continuation lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages():
    """{target: its instructions}."""
    found = {}
    for instruction, argument in instructions():
        if instruction == "FROM":
            current = found.setdefault(argument.split(" AS ")[1], [])
        elif found:
            current.append((instruction, argument))
    return found


def test_a_build_and_two_targets_of_which_gpu_is_cpu_with_the_cards_visible():
    bases = [argument for instruction, argument in instructions() if instruction == "FROM"]
    assert bases == ["python:${PYTHON}-slim-bookworm AS build", "python:${PYTHON}-slim-bookworm AS cpu", "cpu AS gpu"]
    assert {instruction for instruction, _ in stages()["gpu"]} == {"ENV"}


def test_versions_are_pinned():
    version = next(argument for instruction, argument in instructions() if argument.startswith("PYTHON="))
    major, minor, _ = version.removeprefix("PYTHON=").split(".")
    assert (int(major), int(minor)) in {(3, 11), (3, 12), (3, 13)}
    installs = [argument for _, argument in stages()["build"] if "pip install" in argument]
    assert all("constraints.txt" in argument for argument in installs)
    pinned = re.findall(r"^(\w[\w.-]*)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert {"ray", "torch", "numpy"} <= set(pinned)


def test_no_root_a_health_check_and_an_init_process():
    cpu = stages()["cpu"]
    users = [argument for instruction, argument in cpu if instruction == "USER"]
    assert users == ["1000:1000"]
    after = [instruction for instruction, _ in cpu][[instruction for instruction, _ in cpu].index("USER") :]
    assert not {"RUN", "COPY", "ADD"} & set(after)
    assert any(instruction == "HEALTHCHECK" and '"ray", "health-check"' in argument for instruction, argument in cpu)
    assert ("ENTRYPOINT", '["/usr/bin/tini", "--"]') in cpu


def test_what_is_copied_exists_and_is_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for steps in stages().values():
        for instruction, argument in steps:
            if instruction == "COPY" and not argument.startswith("--from"):
                for source in argument.split()[:-1]:
                    assert (ROOT / source).exists(), source
                    assert source.removeprefix("./") in kept, f"{source} is in .dockerignore"


def test_nothing_secret_is_baked_in():
    text = DOCKERFILE.read_text().lower()
    assert not re.search(r"token|password|secret|aws_|api_key", text)


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_the_install_steps_work_in_a_clean_folder(tmp_path):
    """As the file lists them, with /opt and /src in a folder of this test, and then the smallest search."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the image has Python 3.11")
    source, target = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    for instruction, argument in stages()["build"]:
        if instruction == "ENV":
            environment |= dict(pair.split("=", 1) for pair in argument.split())
        elif instruction == "COPY":
            *sources, place = argument.split()
            for name in sources:
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, source / place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / name, source / place)
        elif instruction == "RUN":
            command = argument.replace("/opt/", f"{target}/").replace("python -m venv", f"{sys.executable} -m venv")
            subprocess.run(["sh", "-c", command], cwd=source, env=environment, check=True, timeout=2400)
    program = target / "nas_cluster" / "bin" / "nas-cluster"
    shown = subprocess.run([program, "--version"], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    command = [program, "run", ROOT / "configs" / "quickstart.yaml", "budget.max_children=4", "--local"]
    search = subprocess.run(
        [*command, f"storage_path={tmp_path}/runs"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert search.returncode == 0, search.stderr
    health = next(argument for instruction, argument in stages()["cpu"] if instruction == "HEALTHCHECK")
    name, verb = re.findall(r'"([\w-]+)"', health)
    assert (target / "nas_cluster" / "bin" / name).exists()
    helped = subprocess.run([target / "nas_cluster" / "bin" / name, verb, "--help"], env=environment, cwd=tmp_path)
    assert helped.returncode == 0
