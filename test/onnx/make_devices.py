"""Makes fixtures/devices/mlp.onnx: a small model whose multi-device annotations were written by the
official onnx package (`pip install onnx`, 1.19 or newer), for devices.test.ts.

    python3 test/onnx/make_devices.py

"two stages" is a pipeline; its stages are numbered from 1, as in ONNX's own proposal. "columns" cuts
the first matrix by columns and the second by rows, over two pairs of devices.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

random = np.random.default_rng(7)


def weight(name, *shape):
    return numpy_helper.from_array(random.normal(size=shape).astype(np.float32) / 2, name)


nodes = [
    helper.make_node("Gemm", ["x", "up.weight", "up.bias"], ["hidden"], name="up"),
    helper.make_node("Relu", ["hidden"], ["active"], name="relu"),
    helper.make_node("Gemm", ["active", "middle.weight"], ["between"], name="middle"),
    helper.make_node("Tanh", ["between"], ["bent"], name="tanh"),
    helper.make_node("Gemm", ["bent", "down.weight", "down.bias"], ["y"], name="down"),
]
graph = helper.make_graph(
    nodes,
    "mlp",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 6])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    [
        weight("up.weight", 6, 8),
        weight("up.bias", 8),
        weight("middle.weight", 8, 8),
        weight("down.weight", 8, 3),
        weight("down.bias", 3),
    ],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=11)
for name, count, devices in [("two stages", 2, []), ("columns", 4, ["a0", "a1", "b0", "b1"])]:
    configuration = model.configuration.add()
    configuration.name = name
    configuration.num_devices = count
    configuration.device.extend(devices)


def annotate(node, name, stage=None):
    own = node.device_configurations.add()
    own.configuration_id = name
    if stage is not None:
        own.pipeline_stage = stage
    return own


def shard(own, tensor, axis=None, size=None):
    spec = own.sharding_spec.add()
    spec.tensor_name = tensor
    groups = {-1: [0, 1, 2, 3]} if axis is None else {-1: [0, 1], -2: [2, 3]}
    spec.device.extend(groups)
    for key, devices in groups.items():
        entry = spec.index_to_device_group_map.add()
        entry.key = key
        entry.value.extend(devices)
    if axis is None:
        return
    dim = spec.sharded_dim.add()
    dim.axis = axis
    part = dim.simple_sharding.add()
    part.num_shards = 2
    if size is not None:
        part.dim_value = size


up, relu, middle, tanh, down = model.graph.node
for node, stage in [(up, 1), (middle, 1), (tanh, 2), (down, 2)]:
    annotate(node, "two stages", stage)
own = annotate(up, "columns")
shard(own, "up.weight", axis=-1)
shard(own, "up.bias", axis=0, size=8)
shard(own, "hidden", axis=1)
own = annotate(middle, "columns")
shard(own, "active", axis=1)
shard(own, "middle.weight", axis=0)
own = annotate(down, "columns")
shard(own, "down.weight")
shard(own, "down.bias")

checker.check_model(model, full_check=True)
onnx.save(model, str(Path(__file__).parent / "fixtures" / "devices" / "mlp.onnx"))
