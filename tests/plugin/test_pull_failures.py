"""What engines say of a pull that failed, and what it means."""

from __future__ import annotations

import pytest

from swarmcore.plugin.pull_failures import pull_failure


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("manifest unknown", "no such tag in the registry"),
        ("manifest for redis:nosuch not found: manifest unknown: manifest unknown", "no such tag in the registry"),
        ("name unknown", "no such image in the registry"),
        (
            "pull access denied for nosuch, repository does not exist or may require 'docker login': denied: "
            "requested access to the resource is denied",
            "no such image, or no access to it",
        ),
        ("unauthorized", "the registry refuses access"),
        ('Head "http://127.0.0.1:1/v2/app/manifests/9": no basic auth credentials', "the registry refuses access"),
        ('Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused', "can't be reached"),
        ('Get "https://r/v2/": dial tcp: lookup r on 192.0.2.1:53: no such host', "the registry can't be reached"),
        ('Get "https://r/v2/": EOF', "the registry can't be reached"),
        ("received unexpected HTTP status: 500 Internal Server Error", "the registry failed"),
        ("write /var/lib/docker/tmp/x: no space left on device", "the node's disk is full"),
        ("something that nobody has said before", "can't be pulled"),
    ],
)
def test_what_it_means_stands_before_the_words_and_these_stand_once(words: str, meaning: str) -> None:
    said = pull_failure("redis:nosuch", words)

    assert said.startswith("image 'redis:nosuch': ")
    assert meaning in said
    assert said.endswith(f": {words}") and said.count(words) == 1


def test_words_of_several_lines_become_one() -> None:
    assert pull_failure("a", "one\n  two\n") == "image 'a': can't be pulled: one two"
