"""Flower's SecAgg+, driven in this process and timed.

What is timed is Flower's own code: the four stages of its server (``SecAggPlusWorkflow``) and of its client
(``secaggplus_mod``), on one cohort for one step. Left out, in Flower's favour: messages are handed over as objects,
never serialised, and the client's state is not saved and loaded between stages. Flower shares secrets in worker
threads, so its time is the CPU time of the process.

One client does everything in full and is timed. The others take two short cuts, neither of which changes what the
server or that client has to do:

- Shares are linear: one secret is shared by Flower, and the shares of every other secret of that length are its shares
  plus the difference of the two. (They are therefore no secret to anybody who knows one.)
- Two clients that both stay and are not timed put no mask on for each other, as it would cancel in the sum.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from codream_secure.errors import ConfigError

VERSION = "1.41.0"
_TURNS = 3
_TIMED = 0
_ROUND = 1
_SERVER = 2**63 - 1


def obstacle() -> str | None:
    """Why Flower cannot be timed here, and what to do about it; None if it can."""
    install = "install it with: pip install 'codream-secure[bench]'"
    if importlib.util.find_spec("flwr") is None:
        return f"flwr is not installed; {install}"
    if (found := importlib.metadata.version("flwr")) != VERSION:
        return f"flwr {found} is installed, but what is timed are inner parts of flwr {VERSION}; {install}"
    return None


@dataclass(frozen=True, kw_only=True)
class FlowerTimes:
    """One step of Flower's, whose set-up is part of every step.

    Attributes:
        setup_cpu_s: of one client: keys and shares.
        setup_bytes: what it sends and receives for that.
        client_cpu_s: of one client: mask its vector, and help to open the sum; the former in the median of 3 turns.
        contribute_cpu_s: the former.
        floor_cpu_s: median of what ``floor`` returned before each turn.
        server_cpu_s: of the server, from the collection on.
        unmask_cpu_s: of that, after the collection.
        upload_bytes: what one client sends after the set-up.
        total: the sum that came out.
    """

    setup_cpu_s: float
    setup_bytes: int
    client_cpu_s: float
    contribute_cpu_s: float
    floor_cpu_s: float
    server_cpu_s: float
    unmask_cpu_s: float
    upload_bytes: int
    total: npt.NDArray[np.float64]


def time_flower(
    vectors: Sequence[npt.NDArray[np.float32]],
    *,
    shares: int,
    threshold: float,
    vanished: Collection[int],
    clip: float,
    floor: Callable[[], float],
    observe: Callable[[str], None],
) -> FlowerTimes:
    """Run one step of a cohort.

    Args:
        vectors: each member's values; member 0 is timed.
        shares: neighbours and oneself; as many as there are members make the complete graph, which is what Flower's
            ``num_shares`` of 1.0 does.
        threshold: which part of the shares opens a secret.
        vanished: members that take part in the set-up and send no vector.
        clip: no value exceeds this in magnitude.
        floor: timed in turns with the client; returns its own seconds.
        observe: told each stage as it begins.

    Raises:
        ConfigError: Flower is not there, or gave the sum up.
    """
    if (reason := obstacle()) is not None:
        raise ConfigError(reason)
    # Nothing about this machine is to be sent anywhere.
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    flower, size = _Flower(), len(vectors)
    cohort = _Cohort(flower, vectors, vanished=vanished, floor=floor)
    workflow = flower.server.SecAggPlusWorkflow(
        1.0 if shares == size else shares,
        threshold if shares == size else max(2, round(threshold * shares)),
        max_weight=1.0,
        clipping_range=clip,
    )
    context, state = cohort.context(), flower.server.WorkflowState()
    seconds = {}
    with _quiet():
        for name, text in (
            ("setup", "keys"),
            ("share_keys", "shares"),
            ("collect_masked_vectors", "masked vectors"),
            ("unmask", "the server unmasks"),
        ):
            observe(text)
            cohort.seconds, started = 0.0, time.process_time()
            if not getattr(workflow, f"{name}_stage")(cohort, context, state):
                raise ConfigError(f"Flower gave the sum up: too few of {size} clients are left ({name})")
            seconds[name] = time.process_time() - started - cohort.seconds
    return FlowerTimes(
        setup_cpu_s=cohort.setup_seconds,
        setup_bytes=cohort.setup_bytes,
        client_cpu_s=median(cohort.turns) + cohort.answer_seconds,
        contribute_cpu_s=median(cohort.turns),
        floor_cpu_s=median(cohort.floors),
        server_cpu_s=seconds["collect_masked_vectors"] + seconds["unmask"],
        unmask_cpu_s=seconds["unmask"],
        upload_bytes=cohort.upload_bytes,
        total=cohort.mean() * (size - len(vanished)),
    )


class _Flower:
    """Flower's modules. They are loaded by name, so that this one can be imported, and checked, without them."""

    def __init__(self) -> None:
        # A function of the same name hides the client's module from an import statement.
        self.client: Any = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
        self.server: Any = import_module("flwr.server.workflow.secure_aggregation.secaggplus_workflow")
        self.common: Any = import_module("flwr.common")
        self.app: Any = import_module("flwr.app")
        # Flower's server does not make a message before it knows who it is.
        server = import_module("flwr.supercore.task_identity").TaskIdentity
        server.task_id, server.run_id, server.node_id = 0, 0, _SERVER


class _Cohort:
    """All clients; to the server it is the grid that carries its messages.

    Attributes:
        seconds: CPU seconds spent here, not in the server.
        setup_seconds: of the timed client, and so are all below.
    """

    def __init__(
        self,
        flower: _Flower,
        vectors: Sequence[npt.NDArray[np.float32]],
        *,
        vanished: Collection[int],
        floor: Callable[[], float],
    ) -> None:
        self._flower, self._key = flower, flower.client.Key
        self._vanished, self._vectors, self._floor = vanished, vectors, floor
        self._states = {member: flower.client.SecAggPlusState() for member in range(len(vectors))}
        self._dealt: dict[int, dict[int, tuple[bytes, bytes]]] = {}
        """Shares of both secrets, by whose they are and by their holder."""
        self._templates: tuple[list[bytes], list[bytes]] | None = None
        self._result: Any = None
        self.seconds = self.setup_seconds = self.answer_seconds = 0.0
        self.turns: list[float] = []
        self.floors: list[float] = []
        self.setup_bytes = self.upload_bytes = 0

    # What the server's workflow asks of Flower

    def context(self) -> Any:
        """What the workflow looks at of a server's context."""
        server, common = self._flower.server, self._flower.common
        instructions = common.FitIns(common.Parameters([], ""), {})
        members = [(SimpleNamespace(node_id=member), instructions) for member in self._states]
        return SimpleNamespace(
            state=SimpleNamespace(
                config_records={server.MAIN_CONFIGS_RECORD: {server.WorkflowKey.CURRENT_ROUND: _ROUND}},
                array_records={server.MAIN_PARAMS_RECORD: self._flower.app.ArrayRecord()},
            ),
            strategy=SimpleNamespace(configure_fit=lambda *_: members, aggregate_fit=self._take_result),
            client_manager=SimpleNamespace(num_available=lambda: len(members)),
        )

    def _take_result(self, _: int, results: Any, failures: Any) -> tuple[None, dict[str, Any]]:
        self._result = results[0][1].parameters
        return None, {}

    def mean(self) -> npt.NDArray[np.float64]:
        """The mean vector that the server found."""
        (mean,) = self._flower.common.parameters_to_ndarrays(self._result)
        return np.asarray(mean, dtype=np.float64)

    def send_and_receive(self, messages: Iterable[Any], timeout: float | None = None) -> list[Any]:
        """Hand the server's messages to the clients; their answers."""
        started = time.process_time()
        answers = [answer for message in messages if (answer := self._answer(message)) is not None]
        self.seconds += time.process_time() - started
        return answers

    def _answer(self, message: Any) -> Any:
        member, records = message.metadata.dst_node_id, message.content.config_records
        configs = dict(records[self._flower.server.RECORD_KEY_CONFIGS])
        stage, stages = configs.pop(self._key.STAGE), self._flower.client.Stage
        content = self._flower.app.RecordDict()
        if stage == stages.SETUP:
            found = self._set_up(member, configs)
        elif stage == stages.SHARE_KEYS:
            found = self._share(member, configs)
        elif stage == stages.COLLECT_MASKED_VECTORS:
            if member in self._vanished:
                return None
            found = self._contribute(member, configs)
            content = self._fit_result()
        else:
            found = self._open(member, configs)
        content.config_records[self._flower.server.RECORD_KEY_CONFIGS] = self._flower.app.ConfigRecord(found, False)
        return self._flower.app.Message(content, reply_to=message)

    def _fit_result(self) -> Any:
        common = self._flower.common
        status, nothing = common.Status(common.Code.OK, ""), common.Parameters([], "")
        return self._flower.server.compat.fitres_to_recorddict(common.FitRes(status, nothing, 1, {}), False)

    # The clients

    def _set_up(self, member: int, configs: dict[str, Any]) -> dict[str, Any]:
        state = self._states[member]
        state.nid = member
        started = time.process_time()
        answer: dict[str, Any] = self._flower.client._setup(state, configs)
        if member == _TIMED:
            self.setup_seconds += time.process_time() - started
            self.setup_bytes += _size(answer)
        else:
            # Those that are not timed receive fewer parcels than Flower would send them.
            state.threshold = 1
        return answer

    def _share(self, member: int, configs: dict[str, Any]) -> dict[str, Any]:
        if member != _TIMED:
            return self._share_short(member, configs)
        started = time.process_time()
        answer: dict[str, Any] = self._flower.client._share_keys(self._states[member], configs)
        self.setup_seconds += time.process_time() - started
        self.setup_bytes += _size(configs) + _size(answer)
        return answer

    def _share_short(self, member: int, configs: dict[str, Any]) -> dict[str, Any]:
        client, state = self._flower.client, self._states[member]
        state.public_keys_dict = {int(peer): tuple(keys) for peer, keys in configs.items()}
        state.rd_seed = os.urandom(32)
        if self._templates is None:
            self._templates = (
                client.create_shares(bytes(len(state.rd_seed)), self._states[_TIMED].threshold, state.share_num),
                client.create_shares(bytes(len(state.sk1)), self._states[_TIMED].threshold, state.share_num),
            )
        seeds, keys = self._templates
        dealt = self._dealt[member] = {
            holder: (_moved(seeds[at], state.rd_seed), _moved(keys[at], state.sk1))
            for at, holder in enumerate(state.public_keys_dict)
        }
        private, recipients, parcels = client.bytes_to_private_key(state.sk2), [], []
        for peer, (_, public) in state.public_keys_dict.items():
            if peer == member or not (peer == _TIMED or {peer, member} & set(self._vanished)):
                continue
            key = client.generate_shared_key(private, client.bytes_to_public_key(public))
            state.ss2_dict[peer] = key
            if peer == _TIMED or member in self._vanished:
                recipients.append(peer)
                parcels.append(client.encrypt(key, client.share_keys_plaintext_concat(member, peer, *dealt[peer])))
        return {self._key.DESTINATION_LIST: recipients, self._key.CIPHERTEXT_LIST: parcels}

    def _contribute(self, member: int, configs: dict[str, Any]) -> dict[str, Any]:
        client, state = self._flower.client, self._states[member]
        parameters = self._flower.server.ndarrays_to_parameters([self._vectors[member]])
        if member == _TIMED:
            self.setup_bytes += _size(configs)
        answer: dict[str, Any] = {}
        for _ in range(_TURNS if member == _TIMED else 1):
            if member == _TIMED:
                self.floors.append(self._floor())
            started = time.process_time()
            answer = client._collect_masked_vectors(state, configs, 1, parameters)
            if member == _TIMED:
                self.turns.append(time.process_time() - started)
        if member == _TIMED:
            self.upload_bytes += _size(answer)
        return answer

    def _open(self, member: int, configs: dict[str, Any]) -> dict[str, Any]:
        state = self._states[member]
        for owner, dealt in self._dealt.items():
            if member != _TIMED and member in dealt:
                state.rd_seed_share_dict[owner], state.sk1_share_dict[owner] = dealt[member]
        started = time.process_time()
        answer: dict[str, Any] = self._flower.client._unmask(state, configs)
        if member == _TIMED:
            self.answer_seconds = time.process_time() - started
            self.upload_bytes += _size(answer)
        return answer


def _moved(share: bytes, secret: bytes) -> bytes:
    """A share of a secret, from the share of as many zeros: addition in the field is exclusive or.

    Both are padded alike, and a share begins with 4 bytes of its place.
    """
    moved = bytearray(share)
    moved[4 : 4 + len(secret)] = bytes(a ^ b for a, b in zip(moved[4:], secret, strict=False))
    return bytes(moved)


def _size(record: Any) -> int:
    """Bytes of what a message holds, integers as 8, without any framing."""
    if isinstance(record, bytes):
        return len(record)
    if isinstance(record, dict):
        return sum(map(_size, record.values()))
    if isinstance(record, list | tuple):
        return sum(map(_size, record))
    return 8


@contextmanager
def _quiet() -> Iterator[None]:
    """Flower's log says what the stages do; only what goes wrong is of interest here."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
