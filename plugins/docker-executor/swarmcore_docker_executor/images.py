"""Images of a Docker Engine: looked for, and pulled."""

from __future__ import annotations

import json
from collections.abc import Callable

import requests

from swarmcore.plugin.engine_calls import EngineError, message_of
from swarmcore.plugin.executor import TaskRejectedError
from swarmcore.plugin.image_pulls import ImagePulls
from swarmcore.plugin.pull_failures import pull_failure
from swarmcore_docker_executor.engine import Engine


class Images(ImagePulls):
    """The images of one engine."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("docker")
        self._engine = engine

    async def _is_here(self, image: str) -> bool:
        try:
            await self._engine.call("GET", f"/images/{image}/json")
        except EngineError as error:
            if error.code == 404:
                return False
            raise TaskRejectedError(str(error)) from error
        return True

    def _pull(self, image: str, registry_auth: str, hear: Callable[[], None]) -> None:
        """Pull on a thread; `hear` is called for each word of the registry."""
        headers = {"X-Registry-Auth": registry_auth} if registry_auth else {}
        with self._engine.lasting() as client:
            try:
                response = client.post(
                    f"{client.base_url}/v{self._engine.api_version}/images/create",
                    params=pull_parameters(image),
                    headers=headers,
                    stream=True,
                    timeout=(10, 300),
                )
                # What is not read to its end keeps its socket until it is closed.
                with response:
                    _follow(image, response, hear)
            except (requests.RequestException, ValueError) as error:
                raise self._engine.away(error) from error


def _follow(image: str, response: requests.Response, hear: Callable[[], None]) -> None:
    if response.status_code >= 400:
        raise EngineError(response.status_code, pull_failure(image, message_of(response)))
    # The answer is 200 even when the pull fails: the error is a line of the stream.
    for line in response.iter_lines():
        told = json.loads(line) if line else {}
        if "error" in told:
            raise EngineError(500, pull_failure(image, str(told["error"])))
        hear()


def pull_parameters(image: str) -> dict[str, str]:
    """Split a reference for the engine, which would pull every tag of a bare name."""
    name, at, digest = image.partition("@")
    if at:
        return {"fromImage": name, "tag": digest}
    head, slash, last = name.rpartition("/")
    base, colon, tag = last.partition(":")
    return {"fromImage": f"{head}{slash}{base}", "tag": tag if colon else "latest"}
