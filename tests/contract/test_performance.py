"""What docs/performance.md says was measured on the sources as they are, and is what the measurements found."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASKED = "from pathlib import Path; from tests.bench import hot; [print(one, hot.sources(Path(), one)) for one in hot.FILES]"
WRITE = "import sys; from pathlib import Path; from tests.bench.page import History, write; write(History.read(Path(sys.argv[1])), Path(sys.argv[2]))"


def python(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_each_figure_was_measured_on_its_hot_path_as_it_is():
    now = dict(line.split() for line in python(ASKED).splitlines())
    page = (ROOT / "docs/performance.md").read_text()
    measured = dict(re.findall(r"^\| (\w+) \|.* \| `([0-9a-f]{16})` \|$", page, re.MULTILINE))

    old = [f"--only {name}" for name in now if measured.get(name) != now[name]]
    assert not old, f"""what these measure has changed since: run make bench ARGS="{" ".join(old)}" """
    assert measured.keys() == now.keys()


def test_the_pages_and_pictures_are_what_the_measurements_found(tmp_path):
    docs = ROOT / "docs"
    python(WRITE, str(docs / "performance.json"), str(tmp_path))

    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")]
    assert {"performance.md", "scaling.md", "performance.json"} < {str(path) for path in written}
    assert {path.name for path in docs.glob("performance/*.svg")} == {
        path.name for path in written if path.suffix == ".svg"
    }
    edited = [str(path) for path in written if (docs / path).read_bytes() != (tmp_path / path).read_bytes()]
    assert not edited, "make bench writes these; they are not edited"
