"""Pin what the project and its plugins need, with hashes, or check that the pins still satisfy what they declare.

usage: pin_requirements.py [--check | --upgrade]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINNED = ROOT / "requirements" / "dev.txt"


def compile_pins(output: Path, *, upgrade: bool) -> None:
    """Resolve the workspace; pins that stand in `output` are kept where they still fit."""
    projects = ["pyproject.toml", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("plugins/*/pyproject.toml"))]
    command = [str(Path(sys.executable).parent / "uv"), "pip", "compile", *projects]
    command += ["--group", "dev", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-header"]
    command += ["--no-emit-package", "swarmcore", "--no-annotate", "--quiet", "--output-file", str(output)]
    if upgrade:
        command.append("--upgrade")
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    if sys.argv[1:] != ["--check"]:
        compile_pins(PINNED, upgrade=sys.argv[1:] == ["--upgrade"])
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "dev.txt"
        shutil.copy(PINNED, fresh)
        compile_pins(fresh, upgrade=False)
        if fresh.read_text() == PINNED.read_text():
            return 0
    print("requirements/dev.txt does not match what is declared; run `make requirements`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
