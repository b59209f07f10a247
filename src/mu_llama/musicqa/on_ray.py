"""The same worker on a Ray cluster; the only door to Ray."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mu_llama.errors import ConfigError
from mu_llama.labels.track import Track
from mu_llama.musicqa.build import Runner, in_this_process
from mu_llama.musicqa.worker import Outcome, Rules
from mu_llama.musicqa.writers import make_writer
from mu_llama.musicqa.writers.protocol import Refused, WriterSpec

_CONNECT_TIMEOUT_S = 5.0
_BATCH_TRACKS = 32
_BLOCK_TRACKS = 1024


class _Worker:
    """Makes a writer once and writes batches of tracks; runs on every node."""

    def __init__(self, spec: WriterSpec, rules: Rules, home: str) -> None:
        self._run = in_this_process(make_writer(spec, home=Path(home)))
        self._rules = rules

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        tracks = [Track.from_dict(json.loads(str(line))) for line in batch["track"]]
        try:
            outcomes = [outcome.to_dict() for outcome in self._run(tracks, self._rules)]
        except Refused as error:
            outcomes = [{"refused": str(error)}]
        return {"outcome": [json.dumps(outcome) for outcome in outcomes]}


def on_ray(address: str, spec: WriterSpec, *, home: Path, num_workers: int) -> Runner:
    """Write on a cluster, as a Ray Data pipeline of so many workers, each with a writer of its own.

    Tracks go out in blocks, so that a list of any length is held in bounded memory.

    Args:
        address: `local`, `auto`, or that of a cluster.
        spec: of the writer, made anew by each worker; keys come from each node's environment.
        home: cache folder, on each node.
        num_workers: how many at the same time.

    Raises:
        ConfigError: if Ray isn't installed or the cluster can't be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray; run: pip install 'mu-llama[ray]'") from error
    _check_reachable(address)
    if not ray.is_initialized():
        more = {"num_cpus": num_workers + 1} if address == "local" else {}  # one for Ray Data's own tasks
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **more)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"--ray {address!r} can't be reached ({reason}); start a cluster, or take local"
            ) from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False

    def run(tracks: Iterable[Track], rules: Rules) -> Iterator[Outcome]:
        for block in _blocks(tracks):
            rows = [{"track": json.dumps(track.to_dict())} for track in block]
            num_blocks = max(1, min(len(rows), 4 * num_workers))
            written = ray.data.from_items(rows, override_num_blocks=num_blocks).map_batches(
                _Worker,
                fn_constructor_args=(spec, rules, str(home)),
                batch_size=_BATCH_TRACKS,
                compute=ray.data.ActorPoolStrategy(size=num_workers),
            )
            for row in written.iter_rows():
                outcome = json.loads(row["outcome"])
                if "refused" in outcome:
                    raise Refused(outcome["refused"])
                yield Outcome(**{**outcome, "reasons": tuple(outcome["reasons"])})

    return run


def _check_reachable(address: str) -> None:
    """Try to connect to a cluster's port: Ray itself waits for minutes where nobody answers.

    Raises:
        ConfigError: if nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(f"--ray {address!r} can't be reached ({error}); start a cluster, or take local") from error


def _blocks(tracks: Iterable[Track]) -> Iterator[list[Track]]:
    block: list[Track] = []
    for track in tracks:
        block.append(track)
        if len(block) == _BLOCK_TRACKS:
            yield block
            block = []
    if block:
        yield block
