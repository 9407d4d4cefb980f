"""What `make up` makes of what the engine says of a container."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("up", Path(__file__).parents[2] / "deploy/up.py")
up = importlib.util.module_from_spec(spec)
spec.loader.exec_module(up)


def inspected(state: dict, ports: dict | None = None) -> dict:
    labels = {"com.docker.compose.service": "ingest"}
    return {
        "Id": "1",
        "State": state,
        "Config": {"Labels": labels},
        "NetworkSettings": {"Ports": ports or {}},
    }


@pytest.mark.parametrize(
    ("state", "said", "well", "ended"),
    [
        ({"Status": "created", "ExitCode": 0}, "created", False, False),
        ({"Status": "running", "ExitCode": 0}, "running", True, False),
        ({"Status": "running", "ExitCode": 0, "Health": {"Status": "starting"}}, "starting", False, False),
        ({"Status": "running", "ExitCode": 0, "Health": {"Status": "healthy"}}, "healthy", True, False),
        ({"Status": "running", "ExitCode": 0, "Health": {"Status": "unhealthy"}}, "unhealthy", False, True),
        ({"Status": "exited", "ExitCode": 0}, "done", True, False),
        ({"Status": "exited", "ExitCode": 1}, "ended with 1", False, False),
        (
            {"Status": "restarting", "ExitCode": 137, "Health": {"Status": "unhealthy"}},
            "ended with 137",
            False,
            False,
        ),
        ({"Status": "restarting", "ExitCode": 78}, "ended with 78", False, True),
    ],
)
def test_a_state_is_well_to_be_waited_for_or_the_end(state, said, well, ended):
    one = up.container(inspected(state))

    assert (one.state, one.well, up.ended([one]) == [one]) == (said, well, ended)


def test_where_it_is_published_is_said():
    ports = {"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}, {"HostIp": "::", "HostPort": "80"}]}

    assert up.container(inspected({"Status": "running"}, {"9/tcp": None} | ports)).published == "0.0.0.0:80"
