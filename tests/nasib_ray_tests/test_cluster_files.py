"""The files in examples/cluster, as far as they can be checked without a cloud."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from nasib_ray import SweepConfig
from nasib_ray.cli import app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "cluster"
OF_RAY = ("aws", "gcp", "on-premises")


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return content


def commands() -> list[list[str]]:
    """Every `nasib-ray sweep` of the files, and every examples/sweep.py, which takes the same; in parts."""
    found = []
    for file in sorted(FOLDER.iterdir()):
        text = re.sub(r"^# ?", "", file.read_text(), flags=re.MULTILINE)
        text = re.sub(r"\\\n", " ", text)
        folded = re.sub(r"(entrypoint: >-\n)((?: {4}.*\n)+)", lambda made: " ".join(made[2].split()) + "\n", text)
        for line in folded.splitlines():
            _, mark, rest = line.partition("examples/sweep.py -- " if "ray submit" in line else "nasib-ray sweep ")
            if mark:
                found.append(shlex.split(re.sub(r"\"?\$\w+\"?(:\"?\$\w+\"?)?", "x", rest)))
    return found


@pytest.mark.parametrize("name", OF_RAY)
def test_ray_takes_its_cluster_files(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read(name)
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="nonsense"):
        validate_config(prepare_config({**read(name), "nonsense": 1}))


def test_amazon_takes_the_machines() -> None:
    from botocore.session import get_session  # type: ignore[import-untyped]
    from botocore.validate import ParamValidator  # type: ignore[import-untyped]

    model = get_session().get_service_model("ec2").operation_model("RunInstances").input_shape

    def problems(machine: dict[str, Any]) -> str:
        told: str = ParamValidator().validate({**machine, "MinCount": 1, "MaxCount": 1}, model).generate_report()
        return told

    kinds = read("aws")["available_node_types"]
    for kind in kinds.values():
        assert problems(kind["node_config"]) == ""
    assert "InstanceTypo" in problems({"InstanceTypo": "m5.large"})
    assert kinds["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in kinds["head"]["node_config"], "the driver's machine must stay"


def test_googles_spot_machines_stop_where_they_must() -> None:
    kinds = read("gcp")["available_node_types"]
    assert kinds["gpu"]["node_config"]["scheduling"] == [{"preemptible": True}, {"onHostMaintenance": "TERMINATE"}]
    assert "scheduling" not in kinds["head"]["node_config"]


@pytest.mark.parametrize("name", OF_RAY)
def test_authentication_is_told_wherever_ray_is_started(name: str) -> None:
    config = read(name)
    for command in [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]:
        assert re.search(r"RAY_AUTH_MODE=\w+ ray (start|stop)", command), command


@pytest.mark.parametrize("name", OF_RAY)
def test_the_configuration_that_is_named_is_copied_to_the_machines(name: str) -> None:
    mounts = read(name)["file_mounts"]
    assert set(mounts.values()) == {"dist", "examples"}
    (command,) = re.findall(r"sweep\.py -- (\S+)", (FOLDER / f"{name}.yaml").read_text())
    (mount,) = [place for place in mounts if f"~/{command}".startswith(f"{place}/")]
    SweepConfig.load(ROOT / mounts[mount] / command.removeprefix(mount.removeprefix("~/") + "/"))


def test_kuberay_is_asked_for_a_cluster_of_its_own() -> None:
    job = read("kuberay")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "RAY_AUTH_MODE", "value": "disabled"} in container["env"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    assert all(isinstance(value, str) for group in groups for value in group["rayStartParams"].values())


def test_the_batch_script_is_one() -> None:
    subprocess.run(["bash", "-n", FOLDER / "slurm.sh"], check=True)


def test_their_commands_are_ours() -> None:
    found = commands()
    assert len(found) == 5
    sweep = typer.main.get_command(app).commands["sweep"]  # type: ignore[attr-defined]
    for parts in found:
        context = sweep.make_context("sweep", [part for part in parts if not part.endswith(".yaml")])
        given = {name: value for name, value in context.params.items() if value and name != "settings"}
        given.pop("address", None)
        given["deadline"] = None
        SweepConfig.load(None, context.params["settings"] or (), **given)
        assert given["name"], "without a name it could not go on after the head is gone"
