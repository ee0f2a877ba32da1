"""Composition root of the exporter agent."""

import asyncio
import os
import signal
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import structlog

from lablease.clock import utc_now
from lablease.driver.config import driver_types
from lablease.exporter_agent.agent import Agent, StopMode
from lablease.exporter_agent.channels import Channels, Trust
from lablease.exporter_agent.config import ExporterConfig, load, store_token
from lablease.exporter_agent.controller import Controller
from lablease.exporter_agent.errors import ConfigProblem
from lablease.exporter_agent.hosts import Hosts
from lablease.exporter_agent.kinds import choose_kind

log = structlog.get_logger()


class TokenFile:
    """The token in the configuration file."""

    def __init__(self, path: Path, env: Mapping[str, str]) -> None:
        self._path = path
        self._env = env

    async def renewed(self, token: str) -> None:
        """Keep a renewed token for the next start."""
        try:
            await asyncio.to_thread(store_token, self._path, token)
        except (OSError, ConfigProblem) as error:
            log.warning("token.not_stored", file=str(self._path), problem=str(error))
        else:
            log.info("token.renewed", file=str(self._path))

    async def read(self) -> str | None:
        """Return what the file says now, None if it cannot be read."""
        try:
            config, _ = await asyncio.to_thread(load, self._path, self._env)
        except ConfigProblem as error:
            log.warning("token.not_read", problem=str(error))
            return None
        return config.token


async def run(path: Path, env: Mapping[str, str], *, exit_on_lease_end: bool = False) -> int:
    """Run the agent of a configuration file until it is told to stop; returns the exit status.

    Raises:
        ConfigProblem: the file, or a driver in it, cannot be used.
    """
    config, unknown = await asyncio.to_thread(load, path, env)
    for key in unknown:
        log.warning("config.unknown_key", file=str(path), key=key)
    if exit_on_lease_end:
        config = config.model_copy(update={"exit_on_lease_end": True})
    if not config.endpoint or not config.token:
        missing = "endpoint" if not config.endpoint else "token"
        raise ConfigProblem(f"{path}: {missing}: is required to reach the controller")
    log.info("agent.starting", exporter=config.metadata.name, endpoint=config.endpoint, file=str(path))
    channels = Channels(Trust(config.trusted_roots(env), config.insecure(env), config.grpc_options))
    with tempfile.TemporaryDirectory(prefix="lablease-", dir=env.get("XDG_RUNTIME_DIR")) as directory:
        os.chmod(directory, stat.S_IRWXU)
        try:
            return await _serve(config, channels, TokenFile(path, env), Path(directory), env)
        finally:
            await channels.close()


async def _serve(
    config: ExporterConfig, channels: Channels, tokens: TokenFile, directory: Path, env: Mapping[str, str]
) -> int:
    controller = Controller(
        channels,
        config.endpoint or "",
        name=config.metadata.name,
        namespace=config.metadata.namespace,
        token=config.token or "",
        renewed=tokens.renewed,
        tokens=tokens.read,
    )
    agent = Agent(
        config=config,
        exporter_uuid=str(uuid4()),
        hosts=Hosts(await choose_kind(tuple(driver_types(config.export)), config.driver_python, env)),
        channels=channels,
        controller=controller,
        now=utc_now,
        directory=directory,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, agent.stop, StopMode.NOW)
    loop.add_signal_handler(signal.SIGHUP, agent.stop, StopMode.AFTER_LEASE)
    return 0 if await agent.run() else 1
