#!/usr/bin/env python3
"""Compare a folder of .proto files with the wire table of docker.swarmkit.v1 (`wire.tsv`, beside this file).

usage: check_wire.py PROTO_DIR [--groups ca,control,dispatcher,…]

Each message, field number, field type, enum value and RPC of the table must be there with the same meaning on the
wire. Additions are allowed where they can't clash: fields from number 1000 up, and packages of one's own. Prints each
difference, then one line: 'wire: N checked, N missing, N different, N unknown'. Exit status 0 only when nothing is
missing, different or unknown.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

PACKAGE = "docker.swarmkit.v1"
TABLE = Path(__file__).parent / "wire.tsv"
BUILTIN = Path(grpc_tools.__file__).parent / "_proto"
TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
FIRST_OWN_FIELD = 1000

Key = tuple[str, str, str]
"""Kind, owner and name, as in the table."""
Meaning = tuple[str, str]
"""Number or shape, and type."""


def compile_folder(folder: Path) -> FileDescriptorSet:
    """Every .proto below `folder`, as descriptors."""
    protos = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    if not protos:
        sys.exit(f"no .proto files under {folder}")
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "set"
        command = ["", f"-I{folder}", f"-I{BUILTIN}", "--include_imports", f"--descriptor_set_out={out}", *protos]
        if protoc.main(command):
            sys.exit("protoc failed")
        return FileDescriptorSet.FromString(out.read_bytes())


def short(name: str) -> str:
    return name.replace(f".{PACKAGE}.", "").lstrip(".")


def type_of(field: FieldDescriptorProto) -> str:
    return short(field.type_name) if field.type_name else TYPES[field.type]


def add_enum(found: dict[Key, Meaning], enum: EnumDescriptorProto, prefix: str) -> None:
    for value in enum.value:
        found["enum", prefix + enum.name, value.name] = (str(value.number), "")


def add_message(found: dict[Key, Meaning], message: DescriptorProto, prefix: str) -> None:
    name = prefix + message.name
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    found["message", name, ""] = ("", "")
    for field in message.field:
        kind = type_of(field)
        if (entry := maps.get(kind.split(".")[-1])) is not None:
            key, value = entry.field
            kind = f"map<{type_of(key)},{type_of(value)}>"
        elif field.label == FieldDescriptorProto.LABEL_REPEATED:
            kind = f"repeated {kind}"
        found["field", name, field.name] = (str(field.number), kind)
    for enum in message.enum_type:
        add_enum(found, enum, f"{name}.")
    for nested in message.nested_type:
        if nested.name not in maps:
            add_message(found, nested, f"{name}.")


def meanings(files: FileDescriptorSet) -> dict[Key, Meaning]:
    """What the package says on the wire, in the table's terms."""
    found: dict[Key, Meaning] = {}
    for file in files.file:
        if file.package != PACKAGE:
            continue
        for enum in file.enum_type:
            add_enum(found, enum, "")
        for message in file.message_type:
            add_message(found, message, "")
        for service in file.service:
            for rpc in service.method:
                sides = (("client-stream", rpc.client_streaming), ("server-stream", rpc.server_streaming))
                shape = " ".join(side for side, streams in sides if streams) or "unary"
                found["rpc", service.name, rpc.name] = (shape, f"{short(rpc.input_type)} -> {short(rpc.output_type)}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proto_dir", type=Path)
    parser.add_argument("--groups", help="only these groups of the table, comma separated")
    options = parser.parse_args()
    groups = set(options.groups.split(",")) if options.groups else None
    have = meanings(compile_folder(options.proto_dir))
    wanted: set[Key] = set()
    checked = missing = different = unknown = 0
    with TABLE.open(newline="") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            key = (row["kind"], row["owner"], row["name"])
            wanted.add(key)
            if groups and row["group"] not in groups:
                continue
            checked += 1
            expected = ("", "") if row["kind"] == "message" else (row["number_or_shape"].strip(), row["type"])
            if (got := have.get(key)) is None:
                missing += 1
                print("missing  ", *key)
            elif got != expected:
                different += 1
                print("different", *key, "table:", expected, "here:", got)
    owners = {owner for _, owner, _ in wanted}
    for key, meaning in sorted(have.items()):
        kind, owner, _ = key
        is_own = kind == "field" and int(meaning[0]) >= FIRST_OWN_FIELD
        if key in wanted or kind == "message" or owner not in owners or is_own:
            continue
        unknown += 1
        print("unknown  ", *key, meaning)
    print(f"wire: {checked} checked, {missing} missing, {different} different, {unknown} unknown")
    return 1 if missing or different or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
