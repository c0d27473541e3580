"""A node: Flower's usual ClientApp, but for one line."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from codream_secure.flower import protected_mod
from quickstart import task
from quickstart.sums import SUMS

app = ClientApp(mods=[protected_mod(SUMS)])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on this node's images."""
    images, labels = _data(context)
    arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
    rate = float(context.run_config["learning-rate"])
    arrays, loss = task.train(arrays, images, labels, learning_rate=rate)
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    metrics = MetricRecord({"num-examples": len(labels), "train-loss": loss})
    return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate on this node's images."""
    images, labels = _data(context)
    arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
    metrics = MetricRecord({"num-examples": len(labels), "accuracy": task.accuracy(arrays, images, labels)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _data(context: Context) -> tuple[object, object]:
    return task.load(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
