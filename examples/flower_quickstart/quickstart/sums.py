"""What server and nodes agree on about their sums; both import it."""

from codream_secure.flower import Protection

SUMS = Protection(
    name="masked",
    clip=1.0,
    clients=4,
    max_weight=10_000,
    metrics={"train-loss": 10.0},
    evaluate_metrics={"accuracy": 1.0},
)
