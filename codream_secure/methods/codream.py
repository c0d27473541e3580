"""CoDream (arXiv 2402.15968): dream together, label together, then every client learns from the dreams.

A round is: synthesise dreams from all clients' gradients; label them with the mean of all clients' predictions; distil
the buffer of dreams into every client and, if there is one, into the server's student; train locally.

Beyond the published method, each on its own switch: the buffer is labelled anew every round, so that no client learns
from what worse models once thought (``distillation.relabel``); distillation steps rehearse the client's own images
(``distillation.rehearsal``); CutMix copies of the buffer, whose labels alone are exchanged, make more of every dream
(``distillation.cutmix``); features are matched per position (``dreaming.moments``); what is optimised and exchanged
may be fewer numbers than pixels (``dreaming.space``).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from codream_secure import training
from codream_secure.base_channel import Deferred, Tensors
from codream_secure.client import Client, Rehearsal, distil
from codream_secure.config import Config
from codream_secure.dreamers import Dreamers
from codream_secure.dreaming import Coefficients, DreamBuffer, DreamObjective, frozen, labels, losses, make_space
from codream_secure.dreaming.mixing import cutmix
from codream_secure.dreaming.spaces import DreamSpace
from codream_secure.dreaming.synthesis import Schedule, dream_alone, dream_together
from codream_secure.errors import ConfigError
from codream_secure.federation import Federation, optimization
from codream_secure.methods.base import Method, mean_or_nan
from codream_secure.methods.fedavg import averaged_tensors, write_tensors
from codream_secure.seeding import seeded
from protocols import make_protocol


class CoDream(Method):
    """Collaborative dream synthesis and distillation between clients of any architecture."""

    name: ClassVar[str] = "codream"
    summary: ClassVar[str] = "dreams and soft labels, no data and no weights"

    @classmethod
    def obstacle(cls, config: Config) -> str | None:
        protection = config.protocol.protection
        if config.model.server and make_protocol(protection).opened_by == "clients":
            return (
                f"has a student at the server (model.server), which under {protection!r} sees neither dreams nor labels"
            )
        return None

    def __init__(self, federation: Federation) -> None:
        super().__init__(federation)
        dreaming = self.config.dreaming
        self._buffer = DreamBuffer(self.config.distillation.buffer)
        self._dreams: torch.Tensor | None = None
        source = federation.source
        self._space = make_space(
            dreaming.space.kind,
            dreaming.space.size,
            channels=source.channels,
            image_size=source.image_size,
            seed=self.config.run.seed,
            lowest=[(0 - mean) / std for mean, std in zip(source.mean, source.std, strict=True)],
            highest=[(1 - mean) / std for mean, std in zip(source.mean, source.std, strict=True)],
            device=federation.device,
        )
        self._dreamers = Dreamers(federation) if self.config.dp.unit == "example" else None
        self._dreaming_models: dict[int, nn.Module] = {
            client.number: client.model if self._dreamers is None else self._dreamers.models[index]
            for index, client in enumerate(federation.clients)
        }
        """Of the clients that live here."""
        self._classes = labels.public_classes(dreaming.images, federation.source.num_classes).to(federation.device)
        server = self.config.model.server
        self._student = federation.new_model(server, "server") if server and federation.holds_server else None
        self._schedule = Schedule(
            steps=dreaming.steps,
            local_steps=dreaming.local_steps,
            local_optimizer=dreaming.local_optimizer,
            local_lr=dreaming.local_lr,
            optimizer=dreaming.optimizer,
            lr=dreaming.lr,
            betas=dreaming.betas,
            unit_updates=dreaming.unit_updates,
            bound=self.config.dp.clip,
        )

    def warm_up(self) -> None:
        super().warm_up()
        if self._dreamers is not None:
            self._dreamers.train()

    def run_round(self, number: int) -> dict[str, float]:
        distils = number % self.config.distillation.every == 0
        asks = self.config.dreaming.labels != "classes"
        if distils and asks and self.config.distillation.relabel and len(self._buffer):
            # Models do not change while they dream, so old and new dreams end up with labels of the same models.
            self._buffer.labels = self._label(self._buffer.images)
        for batch in range(self.config.dreaming.batches):
            self._extract_knowledge(number, batch)
        figures = self._acquire_knowledge(number) if distils else {}
        clients = self.federation.clients
        local = []
        for done, client in enumerate(clients):
            self.federation.observe("local training", done, len(clients))
            local.append(
                self.federation.train_locally(client, epochs=self.config.local.epochs, place="local", number=number)
            )
        return {**figures, "local_loss": mean_or_nan(local)}

    def _extract_knowledge(self, number: int, batch: int) -> None:
        """Synthesise one batch of dreams and put it into the buffer with its labels."""
        federation, dreaming = self.federation, self.config.dreaming
        generator = federation.generator("dreams", number, batch)
        start = self._space.start(dreaming.images, generator).to(federation.device)
        adaptive = dreaming.adaptive if number >= dreaming.adaptive_from_round else "none"
        student_at_clients = self._broadcast_student() if adaptive == "jsd" else None

        def watch(step: int, points: torch.Tensor) -> None:
            federation.observe("dreaming", step, dreaming.steps)
            if dreaming.label_midway and step == dreaming.steps // 2:
                self._store(points)

        with self._objectives(student_at_clients) as objectives:
            if dreaming.collaborative:
                points = dream_together(
                    start,
                    objectives,
                    federation.channel,
                    schedule=self._schedule,
                    space=self._space,
                    server_gradient=self._student_entropy_gradient() if adaptive == "server_entropy" else None,
                    after_step=watch,
                )
            else:
                points = dream_alone(start, objectives, federation.channel, schedule=self._schedule, space=self._space)
        self._dreams = self._space.images(points)
        self._store(points)

    @contextmanager
    def _objectives(self, student: nn.Module | None = None) -> Iterator[dict[int, DreamObjective]]:
        """Client number to its dreaming loss, open; with a student, it also teaches that one (JSD)."""
        dreaming = self.config.dreaming
        with ExitStack() as stack:
            yield {
                client.number: stack.enter_context(
                    DreamObjective(
                        self._dreaming_models[client.number],
                        client.images,
                        coefficients=Coefficients(
                            entropy=dreaming.entropy,
                            features=dreaming.features,
                            classes=dreaming.classes,
                            tv=dreaming.tv,
                            l2=dreaming.l2,
                            jsd=dreaming.adaptive_weight if student is not None else 0.0,
                        ),
                        feature_layers=self.config.model.feature_layers.get(client.architecture),
                        moments=dreaming.moments,
                        targets=self._dreamers.moments[client.number] if self._dreamers else None,
                        student=student,
                        classes=self._classes,
                        autocast=torch.bfloat16 if self.config.run.precision == "bfloat16" else None,
                    )
                )
                for client in self.federation.clients
            }

    def answer(self, points: torch.Tensor, *, stream: Literal["dream_updates", "soft_labels"]) -> None:
        """Let the server name the dreams: clients answer as they would in a step of dreaming, or in labelling.

        They cannot tell such dreams from others. What they send passes the channel, with its protection and its
        account, and nothing else happens.

        Args:
            points: (n, *space.shape) float32, with n = ``dreaming.images``.
            stream: what clients are asked for.

        Raises:
            ConfigError: clients of this configuration are never asked for that.
            BudgetExceededError: the privacy budget does not allow it.
        """
        dreaming, channel = self.config.dreaming, self.federation.channel
        if stream == "dream_updates":
            if not dreaming.collaborative or not dreaming.steps:
                raise ConfigError("clients send no dream updates: dreaming.steps is 0, or dreaming.collaborative false")
            with self._objectives() as objectives:
                one_step = replace(self._schedule, steps=1)
                dream_together(points, objectives, channel, schedule=one_step, space=self._space)
            return
        if dreaming.labels == "classes":
            raise ConfigError("clients send no labels: dreaming.labels is 'classes'")
        (received,) = channel.broadcast([points], phase="dreams")
        self._label(self._space.images(received))

    @property
    def space(self) -> DreamSpace:
        """Where the dreams that clients optimise jointly lie."""
        return self._space

    def _broadcast_student(self) -> nn.Module:
        """The clients' copy of the student; its way down is counted."""
        assert self._student is not None  # the configuration refuses adaptive teaching without a student
        received = self.federation.channel.broadcast(averaged_tensors(self._student), phase="student")
        at_clients = copy.deepcopy(self._student)
        write_tensors(at_clients, received)
        return at_clients

    def _student_entropy_gradient(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """-lambda dH(student)/dx: added by the server, it moves dreams to where the student is unsure."""
        student, weight = self._student, self.config.dreaming.adaptive_weight
        assert student is not None  # as above

        def gradient(dreams: torch.Tensor) -> torch.Tensor:
            with frozen(student):
                leaf = dreams.detach().requires_grad_()
                (wanted,) = torch.autograd.grad(losses.entropy(student(leaf)), leaf)
            return -weight * wanted

        return gradient

    def _store(self, points: torch.Tensor) -> None:
        """Have the clients label the dreams at these points, and keep both wherever they are known.

        Points are shared, and everybody computes the same images from them. A client that is not where the server is
        learns here what they are.
        """
        (received,) = self.federation.channel.share([points], phase="dreams")
        dreams = self._space.images(received)
        if self.config.dreaming.labels == "classes":
            known = labels.class_labels(self._classes, self.federation.source.num_classes)
        else:
            known = self._label(dreams)
        self._dreams = dreams
        self._buffer.add(dreams, known)

    def _label(self, dreams: torch.Tensor) -> torch.Tensor:
        """The clients' mean soft labels, as logits, of dreams that every client holds."""
        channel = self.federation.channel
        like = torch.empty(len(dreams), self.federation.source.num_classes, device=dreams.device)
        if self.config.dreaming.labels == "logits":
            (mean,) = channel.mean(self._predictions(dreams, lambda logits: logits), phase="soft_labels", like=[like])
        else:
            mean = self._mean_probabilities(dreams, like)
        (received,) = channel.share([mean], phase="soft_labels")
        return received

    def _predictions(self, dreams: torch.Tensor, told: Callable[[torch.Tensor], torch.Tensor]) -> Deferred:
        """What each client tells of its logits."""
        models = self._dreaming_models

        def compute(number: int) -> Tensors:
            return [told(training.predict(models[number], dreams))]

        return Deferred(models, compute)

    def _mean_probabilities(self, dreams: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Their logarithms, so that a stored label is always a vector of logits."""
        channel = self.federation.channel
        if self.config.dp.noise_on_sums:
            images, classes = like.shape
            (mean,) = channel.mean(
                self._predictions(dreams, lambda logits: labels.votes(logits.softmax(dim=1))),
                phase="soft_labels",
                bound=labels.longest_vote(images, classes),
                like=[like],
            )
            mean = labels.probabilities_from(mean)
        else:
            probabilities = self._predictions(dreams, lambda logits: logits.softmax(dim=1))
            (mean,) = channel.mean(probabilities, phase="soft_labels", like=[like])
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()

    def _acquire_knowledge(self, number: int) -> dict[str, float]:
        """Distil the buffer into every client and the student."""
        settings = self.config.distillation
        lessons = self._lessons(number)
        learners: list[tuple[str, nn.Module, Rehearsal | None]] = [
            (f"client {client.number}", client.model, self._rehearsal(client)) for client in self.federation.clients
        ]
        if self._student is not None:
            learners.append(("server", self._student, None))
        if self._dreamers is not None and self.config.dp.training.distil:
            # Without rehearsal: private images have no part in it, so it costs no privacy.
            learners += [(f"dreamer {index}", model, None) for index, model in enumerate(self._dreamers.models)]
        found = []
        for done, (who, model, rehearsal) in enumerate(learners):
            self.federation.observe("distilling", done, len(learners))
            with seeded(self.config.run.seed, "distil", number, who):
                found.append(
                    distil(
                        model,
                        *lessons,
                        epochs=settings.epochs,
                        temperature=settings.temperature,
                        optimization=optimization(settings),
                        generator=self.federation.generator("distil", number, who, "order"),
                        rehearsal=rehearsal,
                    )
                )
        return {"distillation_loss": mean_or_nan(found)}

    def _lessons(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What is learnt from: the buffer and its CutMix copies, with labels."""
        images, labels = [self._buffer.images], [self._buffer.labels]
        for copy_number in range(self.config.distillation.cutmix):
            mixed = cutmix(self._buffer.images, self.federation.generator("cutmix", number, copy_number))
            images.append(mixed)
            labels.append(self._label(mixed))
        return torch.cat(images), torch.cat(labels)

    def _rehearsal(self, client: Client) -> Rehearsal | None:
        weight = self.config.distillation.rehearsal
        if not weight:
            return None
        return Rehearsal(
            images=client.images, labels=client.labels, batch_size=self.config.local.batch_size, weight=weight
        )

    def dreams(self) -> torch.Tensor | None:
        return self._dreams

    @property
    def buffer(self) -> DreamBuffer:
        """The dreams that are learnt from; everybody's is the same."""
        return self._buffer

    def dreamers(self) -> list[nn.Module]:
        return self._dreamers.models if self._dreamers is not None else []

    def server_model(self) -> nn.Module | None:
        return self._student

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "buffer": self._buffer.state_dict(),
            "student": self._student.state_dict() if self._student is not None else None,
            "dreams": self._dreams,
            "dreamers": self._dreamers.state_dict() if self._dreamers is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        device = self.federation.device
        self._buffer.load_state_dict({name: tensor.to(device) for name, tensor in state["buffer"].items()})
        self._dreams = state["dreams"].to(device) if state["dreams"] is not None else None
        if self._student is not None:
            self._student.load_state_dict(state["student"])
        if self._dreamers is not None:
            self._dreamers.load_state_dict(state["dreamers"])
