"""What libraries say is a line like ours."""

import json
import subprocess
import sys

import pytest

SAYS = """
import logging
from shared import log

log.set_up("mapper", pretty={pretty})
try:
    secret = "s3" + "cret"
    secret.index("x")
except ValueError:
    logging.getLogger("uvicorn.error").exception("broken by %s", "somebody")
"""


@pytest.mark.parametrize("pretty", [False, True])
def test_a_librarys_error_is_a_line_like_ours_and_shows_no_variable(pretty):
    told = subprocess.run(
        [sys.executable, "-c", SAYS.format(pretty=pretty)], capture_output=True, text=True, check=True
    ).stderr

    assert "broken by somebody" in told
    assert "ValueError: substring not found" in told
    assert "s3cret" not in told
    if not pretty:
        line = json.loads(told)
        assert (line["service"], line["level"], line["event"]) == ("mapper", "error", "broken by somebody")
