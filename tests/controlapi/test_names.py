"""Names and image references, valid and not."""

from __future__ import annotations

import pytest

from swarmcore.api.types_pb2 import Annotations
from swarmcore.controlapi.validate.image import is_image_reference
from swarmcore.controlapi.validate.names import check_annotations, check_free_name, check_secret_name
from swarmcore.errors import InvalidArgumentError


@pytest.mark.parametrize("name", ["a", "web", "Web-1", "a__b", "a-_-b", "9", "x" * 63])
def test_names_of_services(name: str) -> None:
    check_annotations(Annotations(name=name))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "meta: name must be provided"),
        ("x" * 64, "name must be 63 characters or fewer"),
        ("a.b", "name must be valid as a DNS name component"),
        ("-a", "name must be valid as a DNS name component"),
        ("a-", "name must be valid as a DNS name component"),
        ("a b", "name must be valid as a DNS name component"),
        ("a\n", "name must be valid as a DNS name component"),
        ("ä", "name must be valid as a DNS name component"),
        # The pattern is looked at before the length.
        ("-" * 64, "name must be valid as a DNS name component"),
        ("-" * 100_000, "name must be valid as a DNS name component"),
    ],
)
def test_what_is_no_name_of_a_service(name: str, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text) as caught:
        check_annotations(Annotations(name=name))

    assert "name" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a", "a.b", "A_1-b.c", "x" * 64])
def test_names_of_secrets(name: str) -> None:
    check_secret_name(name)


@pytest.mark.parametrize("name", ["", "x" * 65, ".a", "a.", "a b", "a/b", "a\n", "é"])
def test_what_is_no_name_of_a_secret(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"invalid name: annotations\.name"):
        check_secret_name(name)


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b", "a\rb", "a\x9bb"])
def test_what_is_no_free_name(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"annotations\.name"):
        check_free_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "redis",
        "redis:3.0.5",
        "library/redis",
        "localhost/redis",
        "localhost:5000/a/b:c",
        "registry.example.com:5000/team/app:1.0@sha256:" + "a" * 64,
        "[::1]:5000/app",
        "app@sha256:" + "0" * 64,
        "a__b/c-d.e",
        "Registry/app",
    ],
)
def test_image_references(text: str) -> None:
    assert is_image_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Redis",
        "redis:",
        "redis:-x",
        "redis:" + "x" * 129,
        "a//b",
        "/redis",
        "redis/",
        "redis@sha256:abc",
        "redis@",
        "redis:1@md5",
        "a b",
        "redis\n",
        "a" * 256,
        "a/" * 600 + "a",
        "f" * 64,
        "_redis",
        "redis:tag:tag",
    ],
)
def test_what_is_no_image_reference(text: str) -> None:
    assert not is_image_reference(text)
