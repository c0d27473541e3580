"""One run: warm-up, rounds, evaluation, checkpoints, and the summary of it all.

A run directory holds ``config.toml`` (every value resolved), ``environment.json``, ``metrics.jsonl`` and
``metrics.csv`` (one row per evaluated round), ``partition.json``, ``dreams/round_NNNN.png``, ``checkpoint.pt`` and,
once the run is over, ``summary.json``. The checkpoint is the truth: everything else is rewritten from it, so a run
killed at any moment goes on from the last whole round and ends with the same weights and metrics (seconds apart).

Where privacy is claimed there is also ``privacy.json``, the account of all releases, written before each of them. It is
ahead of the checkpoint when a round is cut off: what that round released counts, and is released once more with fresh
noise. So such a run does not end with the same bits, and may reach the end of its budget a round early.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from codream_secure import files, training
from codream_secure.accounting import sums_in_round
from codream_secure.config import Config
from codream_secure.data import DataSource
from codream_secure.errors import BudgetExceededError, CheckpointError, ConfigError
from codream_secure.federation import Federation, Observer
from codream_secure.methods import Method, find_method
from codream_secure.releases import Releases
from codream_secure.runs import privacy
from codream_secure.runs.checkpoint import load_checkpoint, save_checkpoint
from codream_secure.runs.environment import describe_environment
from codream_secure.runs.grids import save_dream_grid
from codream_secure.runs.summary import summarise
from codream_secure.runs.tensorboard import tensorboard_writer

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run found.

    Attributes:
        config: what was run.
        rows: one per evaluated round, round 0 being the state after the warm-up; the columns of ``metrics.csv``.
        summary: the reported figures; see :func:`codream_secure.runs.summary.summarise`.
    """

    config: Config
    rows: list[Row]
    summary: dict[str, Any]


@dataclass
class _State:
    """What a run has got to, apart from the method's own state."""

    round: int = -1
    seconds: float = 0.0
    stopped: str | None = None
    """Why there are no more rounds, though more were asked for."""
    rows: list[Row] = field(default_factory=list)


def run(
    config: Config,
    *,
    out: Path | None = None,
    resume: bool = False,
    source: DataSource | None = None,
    observe: Observer | None = None,
    on_round: Callable[[Row], None] | None = None,
    on_privacy: Callable[[Releases], None] | None = None,
) -> RunResult:
    """Run one method on one configuration.

    A run whose privacy budget does not allow another round ends there, with the results that it has; one whose budget
    does not cover the warm-up has none.

    Args:
        config: the run.
        out: its directory; None keeps everything in memory.
        resume: go on from ``out``'s checkpoint, if there is one.
        source: the data set, if it is in memory already.
        observe: told (phase, done, total) as the work goes on.
        on_round: told every new row of the metrics, once it is safe in the checkpoint.
        on_privacy: told, before anything is trained, how values will leave clients, where privacy is claimed.

    Raises:
        ConfigError: the method cannot run this configuration, or ``out`` already holds a run and ``resume`` is off, or
            another one is at work there.
        CheckpointError: the checkpoint is damaged or of another configuration.
        NumericalError: training left the finite numbers.
        BudgetExceededError: the privacy budget does not cover the warm-up.
    """
    kind = find_method(config.method)
    obstacle = kind.obstacle(config)
    if obstacle:
        raise ConfigError(f"method {config.method!r} cannot run this configuration: it {obstacle}")
    checkpoint = out / "checkpoint.pt" if out else None
    _refuse_existing(checkpoint, resume=resume)
    with _threads(config.run.threads), ExitStack() as stack:
        federation = Federation.create(config, source=source)
        if observe:
            federation.observe = observe
        releases = federation.channel.releases
        if on_privacy and releases.ledger is not None:
            on_privacy(releases)
        method = kind(federation)
        if out:
            files.make_folder(out)
            # Two at once would each write an account of privacy that lacks what the other releases.
            stack.enter_context(files.held(out))
            _refuse_existing(checkpoint, resume=resume)
        return _run(method, out, checkpoint, on_round or (lambda row: None))


def _refuse_existing(checkpoint: Path | None, *, resume: bool) -> None:
    if checkpoint and checkpoint.exists() and not resume:
        raise ConfigError(f"out {str(checkpoint.parent)!r} already holds a run: resume it, or choose another directory")


def _run(method: Method, out: Path | None, checkpoint: Path | None, on_round: Callable[[Row], None]) -> RunResult:
    federation, config = method.federation, method.config
    state = _State()
    resolved = config.to_toml()
    account = None
    if checkpoint and checkpoint.exists():
        saved = load_checkpoint(checkpoint, config=resolved)
        account = saved.get("privacy")
        _restore(saved, method, state)
    if out:
        privacy.keep_account(federation.channel.releases, out / "privacy.json", saved=account)
        files.write_text(out / "config.toml", resolved)
        if state.round < 0 or not (out / "environment.json").exists():
            # A resumed run keeps the environment that it began in.
            files.write_json(
                out / "environment.json", describe_environment(federation.device, threads=config.run.threads)
            )
        files.write_json(out / "partition.json", federation.class_table.tolist())
        _write_metrics(out, state.rows)
    with ExitStack() as stack:
        board = stack.enter_context(tensorboard_writer(out, config.run.tensorboard, purge_from=state.round + 1))
        for number in range(state.round + 1, config.run.rounds + 1):
            federation.observe("round", number, config.run.rounds)
            started = time.perf_counter()
            try:
                figures = _advance(method, number)
            except BudgetExceededError as error:
                if state.round < 0:
                    raise BudgetExceededError(
                        f"the budget does not cover the warm-up, so there is nothing to keep: {error} (A run that was "
                        "cut off here has spent what it had: start afresh in another directory.)"
                    ) from None
                state.stopped = f"before the end of round {number}: {error}"
                break
            state.seconds += time.perf_counter() - started
            state.round = number
            evaluated = number % config.run.evaluate_every == 0 or number == config.run.rounds
            if evaluated:
                state.rows.append(_measured(method, state, figures))
            if out and checkpoint:
                # The picture first: once the checkpoint is there, this round is not run again.
                dreams = method.dreams()
                if config.run.dream_grids and dreams is not None:
                    save_dream_grid(out / "dreams" / f"round_{number:04d}.png", dreams, federation.source)
                save_checkpoint(checkpoint, _snapshot(method, state, resolved))
                _write_metrics(out, state.rows)
            if evaluated:
                board(state.rows[-1])
                on_round(state.rows[-1])
            if state.stopped:
                break
    if state.stopped and (not state.rows or state.rows[-1]["round"] != state.round):
        state.rows.append(_measure(method, state, {}, release=False))
        if out:
            _write_metrics(out, state.rows)
    summary = summarise(
        config,
        state.rows,
        federation.channel.ledger,
        weights=fingerprint(method),
        privacy=privacy.describe(federation.channel.releases, delta=config.dp.delta, stopped=state.stopped),
    )
    if out:
        files.write_json(out / "summary.json", summary)
    return RunResult(config=config, rows=state.rows, summary=summary)


def _advance(method: Method, number: int) -> dict[str, float]:
    """One round, or the warm-up.

    Raises:
        BudgetExceededError: the privacy budget does not allow it. The method is as it was before.
    """
    channel = method.federation.channel
    channel.begin_round(number)
    if channel.releases.ledger is None:
        return _moved(method, number)
    if not channel.releases.fits(sums_in_round(method.config, number)):
        raise BudgetExceededError("what the budget has left does not cover the sums of this round")
    before = copy.deepcopy(method.state_dict())
    try:
        return _moved(method, number)
    except BudgetExceededError:
        method.load_state_dict(before)
        raise


def _moved(method: Method, number: int) -> dict[str, float]:
    if number:
        return method.run_round(number)
    method.warm_up()
    return {}


def _measured(method: Method, state: _State, figures: dict[str, float]) -> Row:
    """One row of the metrics; where the budget does not allow to release its part of it, the run is over."""
    try:
        return _measure(method, state, figures)
    except BudgetExceededError as error:
        state.stopped = f"at the evaluation of round {state.round}: {error}"
        return _measure(method, state, figures, release=False)


def _measure(method: Method, state: _State, figures: dict[str, float], *, release: bool = True) -> Row:
    """One row of the metrics; bytes and seconds are cumulative, bytes are the mean over clients."""
    federation = method.federation
    evaluation = federation.evaluate(method.models(), release=release)
    totals = [federation.channel.ledger.client_total(client.number) for client in federation.clients]
    row: Row = {
        "round": state.round,
        "validation_accuracy": evaluation.validation,
        "test_accuracy": evaluation.test,
        "client_test_accuracy": list(evaluation.client_test),
        "bytes_up": sum(up for up, _ in totals) / len(totals),
        "bytes_down": sum(down for _, down in totals) / len(totals),
        "seconds": state.seconds,
        "clipped_fraction": federation.channel.ledger.clipped_fraction(),
        **{name: value for name, value in figures.items() if math.isfinite(value)},
    }
    server = method.server_model()
    if server is not None:
        row["server_test_accuracy"] = training.count_correct(server, *federation.test) / len(federation.test[1])
    dreamers = [training.count_correct(model, *federation.test) for model in method.dreamers()]
    if dreamers:
        row["dreamer_test_accuracy"] = sum(dreamers) / len(dreamers) / len(federation.test[1])
    return row


def _snapshot(method: Method, state: _State, resolved: str) -> dict[str, Any]:
    releases = method.federation.channel.releases
    return {
        "config": resolved,
        "round": state.round,
        "seconds": state.seconds,
        "rows": state.rows,
        "ledger": method.federation.channel.ledger.state_dict(),
        "privacy": releases.ledger.state_dict() if releases.ledger is not None else None,
        "method": method.state_dict(),
    }


def _restore(saved: dict[str, Any], method: Method, state: _State) -> None:
    state.round, state.seconds, state.rows = saved["round"], saved["seconds"], saved["rows"]
    method.federation.channel.ledger.load_state_dict(saved["ledger"])
    try:
        method.load_state_dict(saved["method"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint does not fit method {method.name!r}: {error}") from None


def _write_metrics(out: Path, rows: list[Row]) -> None:
    files.write_jsonl(out / "metrics.jsonl", rows)
    files.write_csv(out / "metrics.csv", rows)


def fingerprint(method: Method) -> str:
    """SHA-256 over all clients' final weights and buffers: equal for equal runs on equal software and hardware."""
    digest = hashlib.sha256()
    for model in method.models():
        for name, tensor in model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
