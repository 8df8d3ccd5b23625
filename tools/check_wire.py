#!/usr/bin/env python3
"""Compare a folder of .proto files with the docker.swarmkit.v1 wire table.

usage: check_wire.py PROTO_DIR [--groups ca,control,dispatcher,...]

Compiles every .proto under PROTO_DIR (needs grpcio-tools) and checks, for package
docker.swarmkit.v1, that each message, field number, field type, enum value and RPC of
wire.tsv, beside this file is there with the same meaning on the wire.  Additions of your own are
allowed where they can't clash: fields from number 1000 up, or packages of your own.
Prints each difference, then one line: 'wire: N checked, N missing, N different, N unknown'.
Exit status 0 only when nothing is missing, different or unknown.
"""

import argparse
import csv
import os
import sys
import tempfile

from google.protobuf import descriptor_pb2
from grpc_tools import protoc
import grpc_tools

PACKAGE = "docker.swarmkit.v1"
TYPES = {number: name[5:].lower() for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()}


def compile_set(folder):
    protos = sorted(
        os.path.relpath(os.path.join(d, f), folder)
        for d, _, files in os.walk(folder)
        for f in files
        if f.endswith(".proto")
    )
    if not protos:
        sys.exit(f"no .proto files under {folder}")
    out = os.path.join(tempfile.mkdtemp(), "set")
    builtin = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
    if protoc.main(["", f"-I{folder}", f"-I{builtin}", "--include_imports", f"--descriptor_set_out={out}", *protos]):
        sys.exit("protoc failed")
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(open(out, "rb").read())
    return files


def short(name):
    return name.replace(f".{PACKAGE}.", "").lstrip(".")


def rows(files):
    found = {}

    def message(m, prefix):
        name = prefix + m.name
        maps = {n.name: n for n in m.nested_type if n.options.map_entry}
        found["message", name, ""] = ("", "")
        for f in m.field:
            kind = short(f.type_name) if f.type_name else TYPES[f.type]
            entry = maps.get(kind.split(".")[-1])
            if entry:
                key, value = entry.field
                kind = "map<%s,%s>" % (
                    TYPES[key.type],
                    short(value.type_name) if value.type_name else TYPES[value.type],
                )
            elif f.label == 3:
                kind = "repeated " + kind
            found["field", name, f.name] = (str(f.number), kind)
        for e in m.enum_type:
            enum(e, name + ".")
        for n in m.nested_type:
            if n.name not in maps:
                message(n, name + ".")

    def enum(e, prefix):
        for v in e.value:
            found["enum", prefix + e.name, v.name] = (str(v.number), "")

    for f in files.file:
        if f.package != PACKAGE:
            continue
        for e in f.enum_type:
            enum(e, "")
        for m in f.message_type:
            message(m, "")
        for s in f.service:
            for r in s.method:
                shape = ("client-stream" if r.client_streaming else "") + (
                    " server-stream" if r.server_streaming else ""
                )
                found["rpc", s.name, r.name] = (
                    shape.strip() or "unary",
                    short(r.input_type) + " -> " + short(r.output_type),
                )
    return found


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("proto_dir")
    ap.add_argument("--groups", help="only these groups of the table (second column), comma separated")
    args = ap.parse_args()
    have = rows(compile_set(args.proto_dir))
    groups = set(args.groups.split(",")) if args.groups else None
    table = os.path.join(os.path.dirname(os.path.abspath(__file__)), "wire.tsv")
    want, checked, missing, different, unknown = {}, 0, 0, 0, 0
    for r in csv.DictReader(open(table), delimiter="\t"):
        key = (r["kind"], r["owner"], r["name"])
        want[key] = r
        if groups and r["group"] not in groups:
            continue
        checked += 1
        expected = ("", "") if r["kind"] == "message" else (r["number_or_shape"].strip(), r["type"])
        got = have.get(key)
        if got is None:
            missing += 1
            print("missing  ", *key)
        elif got != expected:
            different += 1
            print("different", *key, "table:", expected, "yours:", got)
    owners = {k[1] for k in want}
    for key, value in sorted(have.items()):
        if key in want or key[0] == "message" or key[1] not in owners:
            continue
        if key[0] == "field" and int(value[0]) >= 1000:
            continue
        unknown += 1
        print("unknown  ", *key, value)
    print(f"wire: {checked} checked, {missing} missing, {different} different, {unknown} unknown")
    return 1 if missing or different or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
