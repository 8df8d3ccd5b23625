"""Generate the Python modules of `swarmcore/api` from its .proto files, or check that they are fresh.

usage: generate_api.py [--check]

The .proto files import each other by bare name, so that the folder compiles by itself; the generated modules are
compiled under `swarmcore/api/`, so that a plugin with a `types.proto` of its own does not clash in protobuf's pool.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
API = ROOT / "swarmcore" / "api"
BUILTIN = Path(grpc_tools.__file__).parent / "_proto"


def generate(into: Path) -> list[Path]:
    """Compile every .proto of the API below `into`; return the files made, relative to it."""
    source = into / "source" / "swarmcore" / "api"
    source.mkdir(parents=True)
    names = {proto.name for proto in API.glob("*.proto")}

    def local(match: re.Match[str]) -> str:
        return f'import "swarmcore/api/{match[1]}";' if match[1] in names else match[0]

    for name in sorted(names):
        text = (API / name).read_text()
        (source / name).write_text(re.sub(r'^import "([^"]+)";', local, text, flags=re.MULTILINE))
    out = into / "out"
    out.mkdir()
    plugin = Path(sys.executable).parent
    failed = protoc.main(
        [
            "protoc",
            f"-I{into / 'source'}",
            f"-I{BUILTIN}",
            f"--plugin=protoc-gen-mypy={plugin / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={plugin / 'protoc-gen-mypy_grpc'}",
            f"--python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--grpc_python_out={out}",
            f"--mypy_grpc_out=quiet:{out}",
            *(f"swarmcore/api/{name}" for name in sorted(names)),
        ]
    )
    if failed:
        raise SystemExit("protoc failed")
    services = {n for n in names if re.search(r"^service ", (API / n).read_text(), flags=re.MULTILINE)}
    made = []
    for path in sorted(out.rglob("*_pb2*.py*")):
        stem = path.name.split("_pb2")[0] + ".proto"
        if "_pb2_grpc" in path.name and stem not in services:
            continue
        made.append(path)
    return made


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    stale = []
    with tempfile.TemporaryDirectory() as folder:
        made = {path.name: path.read_text() for path in generate(Path(folder))}
    present = {path.name for path in API.glob("*_pb2*.py*")}
    for name, text in made.items():
        target = API / name
        if not target.exists() or target.read_text() != text:
            stale.append(name)
            if not check:
                target.write_text(text)
    for name in sorted(present - set(made)):
        stale.append(name)
        if not check:
            (API / name).unlink()
    if check and stale:
        print(f"generated code is stale: {', '.join(stale)}; run tools/generate_api.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
