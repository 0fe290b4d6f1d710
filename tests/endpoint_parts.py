"""A server process, a model, and sessions whose requests are answered as a test says."""

from __future__ import annotations

from typing import Any

import torch

from compressbench.models.handle import ModelHandle
from compressbench.runtimes.endpoint import Endpoint, EndpointSession
from compressbench.testing.endpoint import Running
from compressbench.testing.endpoint_answers import Sent

BATCH = {"input_ids": torch.tensor([[5, 6, 7]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}


def opened(
    server: Running, handle: ModelHandle, options: dict[str, Any] | None = None, **behave: Any
) -> EndpointSession:
    """A session that was probed in peace; its later requests are answered as `behave` says."""
    options = {"timeout_s": 10.0, **(options or {})}
    probed = {name: behave[name] for name in ("told", "refuses") if name in behave}
    session = Endpoint(url=server.url, model="m", extra_body={"behave": probed}, **options).prepare(handle, "cpu")
    later = Endpoint(url=server.url, model="m", extra_body={"behave": behave}, **options)
    session._options = later
    return session


def sent_for(server: Running, mark: str) -> list[Sent]:
    return [sent for sent in server.log() if sent.mark == mark]
