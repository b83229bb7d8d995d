"""Makes fixtures/others/: small models as Keras (tf2onnx) and Flax (jax2onnx) export them, and their weights after 20 steps of SGD there.

Run by hand:  pip install tensorflow-cpu tf2onnx keras jax jax2onnx flax;  python test/onnx/make_others.py
Beside NAME.onnx stands NAME.json: inputs, target, the losses, and each weight of the framework after the steps, under the name and in the
layout of the file. Biases and scales are moved off their first values: tf2onnx leaves zeros out, and equal ones could not be told apart.
"""
import itertools
import json
import os

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu")

import jax
import jax.numpy as jnp
import keras
import numpy as np
import onnx
import tensorflow as tf
from flax import nnx
from jax2onnx import to_onnx
from keras import layers as L

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fixtures", "others")
STEPS, RATE, BATCH = 20, 0.05, 4
RANDOM = np.random.default_rng(5)


def moved(value):
    value = np.asarray(value)
    return value + RANDOM.uniform(0.05, 0.3, value.shape).astype(value.dtype) if np.all(value == value.flat[0]) else value


def keras_mlp():
    layers = [keras.Input((6,), name="x"), L.Dense(8, name="first"), L.BatchNormalization(name="norm"), L.ReLU(), L.Dense(3, name="head")]
    return keras.Sequential(layers, name="mlp")


def keras_conv():
    layers = [keras.Input((8, 8, 1), name="x"), L.Conv2D(4, 3, activation="relu", name="first"), L.MaxPooling2D(), L.Flatten(),
              L.Dense(3, name="head")]
    return keras.Sequential(layers, name="conv")


def keras_embed():
    layers = [keras.Input((5,), dtype="int32", name="x"), L.Embedding(11, 4, name="words"), L.GlobalAveragePooling1D(), L.Dense(2, name="head")]
    return keras.Sequential(layers, name="embed")


def keras_block():
    x = keras.Input((5,), dtype="int32", name="x")
    h = L.Embedding(11, 8, name="words")(x)
    n = L.LayerNormalization(name="ln1")(h)
    h = h + L.MultiHeadAttention(2, 4, name="att")(n, n)
    n = L.LayerNormalization(name="ln2")(h)
    h = h + L.Dense(8, name="down")(L.Dense(16, activation="relu", name="up")(n))
    return keras.Model(x, L.Dense(3, name="head")(h), name="block")


class Mlp(nnx.Module):
    def __init__(self, rngs):
        self.first, self.norm = nnx.Linear(6, 8, rngs=rngs), nnx.BatchNorm(8, rngs=rngs, use_running_average=True)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.first(x))))


class Conv(nnx.Module):
    def __init__(self, rngs):
        self.first, self.head = nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs), nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.first(x)).reshape(x.shape[0], -1))


class Embed(nnx.Module):
    def __init__(self, rngs):
        self.words, self.head = nnx.Embed(11, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.words(x).mean(1))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.ln1, self.att = nnx.LayerNorm(8, rngs=rngs), nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.ln2, self.up, self.down = nnx.LayerNorm(8, rngs=rngs), nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 8, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        x = x + self.att(self.ln1(x))
        return self.head(x + self.down(nnx.gelu(self.up(self.ln2(x)))))


def train_keras(model, x, target):
    variables = model.trainable_weights
    losses = []
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=False) - target) ** 2)
        for variable, gradient in zip(variables, tape.gradient(loss, [v.value for v in variables])):
            gradient = tf.convert_to_tensor(gradient)
            variable.assign(variable - RATE * gradient)
        losses.append(float(loss))
    return losses


def train_flax(model, x, target):
    losses = []
    for _ in range(STEPS):
        loss, gradients = nnx.value_and_grad(lambda m: jnp.mean((m(x) - target) ** 2))(model)
        state = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - RATE * g, state, gradients))
        losses.append(float(loss))
    return losses


def flax_weights(model):
    return {".".join(map(str, path)): np.asarray(v[...]) for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def forms(value):
    """Ways in which converters lay a weight out: turned, or with other dims."""
    for perm in itertools.permutations(range(value.ndim)):
        yield lambda v, perm=perm: np.transpose(v, perm)


def placed(model, before, after):
    """By the name of the initializer: the weight after the steps, in the layout of the file."""
    found, places = {}, {}
    for tensor in model.graph.initializer:
        own = onnx.numpy_helper.to_array(tensor)
        for name, value in before.items():
            if own.dtype != value.dtype or own.size != value.size or name in found:
                continue
            for form in forms(value):
                if np.array_equal(form(value).reshape(own.shape), own):
                    found[name] = tensor.name
                    places[tensor.name] = form(after[name]).reshape(own.shape)
                    break
    return places, sorted(set(before) - set(found))


def numbers(array):
    array = np.asarray(array)
    return {"shape": list(array.shape), "data": [float(f"{v:.8g}") for v in array.flatten().tolist()]}


def write(name, model, x, target, before, after, losses):
    places, missing = placed(model, before, after)
    onnx.save(model, os.path.join(FOLDER, f"{name}.onnx"))
    facts = {"steps": STEPS, "rate": RATE, "batch": BATCH, "input": model.graph.input[0].name, "output": model.graph.output[0].name,
             "x": numbers(x), "target": numbers(target), "losses": losses, "missing": missing,
             "after": {key: numbers(value) for key, value in places.items()}}
    with open(os.path.join(FOLDER, f"{name}.json"), "w") as file:
        json.dump(facts, file)
    print(name, len(places), "missing", missing, losses[0], losses[-1], os.path.getsize(os.path.join(FOLDER, f"{name}.onnx")))


def inputs(shape, ids):
    count = BATCH * int(np.prod(shape))
    values = (np.arange(count) * 7) % 11 if ids else np.sin(np.arange(count, dtype=np.float32))
    return values.astype(np.int32 if ids else np.float32).reshape(BATCH, *shape)


def targets(out):
    return np.cos(np.arange(out.size, dtype=np.float32)).reshape(out.shape)


def main():
    os.makedirs(FOLDER, exist_ok=True)
    keras.utils.set_random_seed(3)
    for name, make in {"mlp": keras_mlp, "conv": keras_conv, "embed": keras_embed, "block": keras_block}.items():
        model = make()
        x = inputs(model.inputs[0].shape[1:], model.inputs[0].dtype == "int32")
        model(x)
        path = os.path.join(FOLDER, "fresh.onnx")
        model.export(path, format="onnx", verbose=False)
        if name == "embed":
            os.replace(path, os.path.join(FOLDER, "keras-fresh.onnx"))
        for variable in model.weights:
            variable.assign(moved(variable))
        model.export(path, format="onnx", verbose=False)
        file = onnx.load(path)
        os.remove(path)
        before = {v.path: v.numpy() for v in model.trainable_weights}
        target = targets(np.asarray(model(x)))
        losses = train_keras(model, x, target)
        write(f"keras-{name}", file, x, target, before, {v.path: v.numpy() for v in model.trainable_weights}, losses)
    for name, (make, shape, ids) in {"mlp": (Mlp, (6,), False), "conv": (Conv, (8, 8, 1), False), "embed": (Embed, (5,), True),
                                     "block": (Block, (5, 8), False)}.items():
        model = make(nnx.Rngs(0))
        nnx.update(model, jax.tree.map(lambda p: jnp.asarray(moved(p)), nnx.state(model, nnx.Param)))
        x = inputs(shape, ids)
        spec = jax.ShapeDtypeStruct((BATCH, *shape), jnp.int32) if ids else ("B", *shape)
        file = to_onnx(model, [spec], model_name=name)
        for node in file.graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        before = flax_weights(model)
        target = targets(np.asarray(model(x)))
        losses = train_flax(model, jnp.asarray(x), target)
        write(f"flax-{name}", file, x, target, before, flax_weights(model), losses)


main()
