"""The server: Flower's usual ServerApp, but for one line."""

from __future__ import annotations

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from codream_secure.flower import Protected
from quickstart import task
from quickstart.sums import SUMS

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run FedAvg, and keep the final arrays."""
    strategy = FedAvg(min_available_nodes=4, min_train_nodes=4, min_evaluate_nodes=4)
    strategy = Protected(strategy, SUMS, roster=str(context.run_config["roster"]))
    result = strategy.start(
        grid,
        initial_arrays=ArrayRecord({name: Array(array) for name, array in task.initial().items()}),
        num_rounds=int(context.run_config["num-server-rounds"]),
        timeout=600,
    )
    np.savez(str(context.run_config["out"]), **{name: array.numpy() for name, array in result.arrays.items()})
    for at, metrics in result.evaluate_metrics_clientapp.items():
        print(f"round {at}: accuracy {metrics['accuracy']:.4f}", flush=True)
