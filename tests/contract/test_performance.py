"""What docs/performance.md says was measured on the sources as they are."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASKED = "from pathlib import Path; from tests.bench import hot; [print(one, hot.sources(Path(), one)) for one in hot.FILES]"


def test_each_figure_was_measured_on_its_hot_path_as_it_is():
    said = subprocess.run([sys.executable, "-c", ASKED], cwd=ROOT, capture_output=True, text=True, check=True)
    now = dict(line.split() for line in said.stdout.splitlines())
    page = (ROOT / "docs/performance.md").read_text()
    measured = dict(re.findall(r"^\| (\w+) \|.* \| `([0-9a-f]{16})` \|$", page, re.MULTILINE))

    assert measured
    old = [f"--only {name}" for name in measured if measured[name] != now[name]]
    assert not old, f"""what these measure has changed since: run make bench ARGS="{" ".join(old)}" """
