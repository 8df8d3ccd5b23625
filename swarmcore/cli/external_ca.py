"""The `--external-ca` flag of both commands: `protocol=cfssl,url=https://…[,cacert=FILE][,k=v…]`."""

from __future__ import annotations

import csv
from pathlib import Path
from urllib.parse import urlsplit

from swarmcore.api.types_pb2 import ExternalCA


def parse_external_ca(text: str) -> ExternalCA:
    """Read one external CA; raises ValueError in words."""
    ca = ExternalCA()
    protocol = ""
    try:
        parts = next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise ValueError(f"{text!r} is not a comma-separated list: {error}") from None
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals or not key:
            raise ValueError(f"{part!r} is not key=value (write it like protocol=cfssl,url=https://ca:8888/sign)")
        if key == "protocol":
            protocol = value.strip().lower()
        elif key == "url":
            ca.url = value.strip()
        elif key == "cacert":
            try:
                ca.ca_cert = Path(value).read_bytes()
            except OSError as error:
                raise ValueError(f"can't read cacert {value!r}: {error.strerror}") from None
        else:
            ca.options[key] = value
    if protocol != "cfssl":
        raise ValueError(f"{text!r} needs protocol=cfssl, the only protocol there is")
    if urlsplit(ca.url).scheme != "https" or not urlsplit(ca.url).netloc:
        raise ValueError(f"{text!r} needs url=https://…")
    ca.protocol = ExternalCA.CFSSL
    return ca
