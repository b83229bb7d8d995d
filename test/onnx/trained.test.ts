/**
 * Exactly what PyTorch trains is trained: small modules by both exporters, folded and plain,
 * compared after some steps of SGD. make_trained.py makes the files.
 */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import * as ort from "onnxruntime-node";
import { createOrtEngine, type HostTensor } from "../../src/engine/index.ts";
import {
  type DeclaredParameter,
  formatInspection,
  inspectModel,
  mse,
  type OnnxOptions,
  onnx,
} from "../../src/import/index.ts";
import { encodeModel } from "../../src/onnx/index.ts";
import { adamw, type Optimizer, sgd } from "../../src/optimizer/index.ts";
import { stateDict } from "../../src/run/export.ts";
import { bindWeights, forwardGraph } from "../../src/run/forward.ts";
import { writeSafetensors } from "../../src/safetensors/index.ts";
import { type Tensor, tensorFrom, toNumbers, transpose } from "../../src/tensor/index.ts";
import { createTrainer } from "../../src/train/index.ts";

interface Numbers {
  readonly shape: readonly number[];
  readonly data: readonly number[];
}

interface Facts {
  readonly steps: number;
  readonly rate: number;
  readonly batch: number;
  readonly ways: readonly string[];
  readonly parameters: readonly DeclaredParameter[];
  readonly inputs: Readonly<Record<string, Numbers>>;
  readonly target: Numbers;
  readonly before: Readonly<Record<string, Numbers>>;
  readonly after: Readonly<Record<string, Numbers>>;
  /**
   * The weights after the same number of steps of AdamW (rate 0.01, decay 0.1 for all parameters),
   * and the outputs then.
   */
  readonly adamw?: Readonly<Record<string, Numbers>>;
  readonly adamwOut?: Numbers;
}

const engine = createOrtEngine({ threads: 1 });
const scratch = mkdtempSync(path.join(tmpdir(), "trained-"));
after(async () => {
  await engine.close();
  rmSync(scratch, { recursive: true });
});

const folder = path.join(import.meta.dirname, "../../../test/onnx/fixtures/trained");
const fileOf = (name: string, way: string) => path.join(folder, `${name}.${way}.onnx`);
const factsOf = (name: string) =>
  JSON.parse(readFileSync(path.join(folder, `${name}.json`), "utf8")) as Facts;

const modelOf = (name: string, way: string, options: Partial<OnnxOptions> = {}) =>
  onnx(fileOf(name, way), {
    loss: mse({ prediction: "out", target: "target" }),
    ...options,
  });

/** Trains as PyTorch did. Returns what a state dict would hold then, and the notes. */
async function train(
  name: string,
  way: string,
  options: Partial<OnnxOptions> = {},
  own?: Optimizer,
) {
  const { steps, rate, batch, inputs, target } = factsOf(name);
  const model = modelOf(name, way, options).build({ batch, mode: "train" });
  const optimizer = own ?? sgd({ learningRate: rate, momentum: 0, weightDecay: 0 });
  const trainer = await createTrainer({ engine, model, optimizer });
  try {
    for (let step = 0; step < steps; step++) {
      await trainer.step({
        positions: { start: step * batch, end: (step + 1) * batch },
        fill: (into) => {
          for (const [field, { data }] of Object.entries({ ...inputs, target })) {
            const tensor = into[field] as HostTensor;
            tensor.bytes.set(tensorFrom(tensor.dtype, tensor.shape, data).bytes);
          }
        },
      });
    }
    const { parameters, states } = await trainer.read();
    const dict = { ...stateDict(model, parameters), ...states };
    const copied = Object.entries(dict).map(([key, { dtype, shape, bytes }]) => [
      key,
      { dtype, shape, bytes: bytes.slice() },
    ]);
    return { dict: Object.fromEntries(copied) as Record<string, Tensor>, model };
  } finally {
    trainer.close();
  }
}

function compare(got: Tensor, want: Numbers, what: string): void {
  assert.deepEqual(got.shape, want.shape, what);
  for (const [i, value] of toNumbers(got).entries()) {
    const expected = want.data[i] as number;
    assert.ok(Math.abs(value - expected) < 2e-5, `${what}[${i}]: ${value}, not ${expected}`);
  }
}

/** Compares weights of which the file has only rows with the rows that moved. */
function compareRows(got: Tensor, before: Numbers, want: Numbers, what: string): void {
  const width = want.shape[1] as number;
  const rows = (values: readonly number[]) =>
    Array.from({ length: values.length / width }, (_, row) =>
      values.slice(row * width, (row + 1) * width),
    );
  const old = rows(before.data);
  const moved = rows(want.data).filter((row, at) => row.some((value, i) => value !== old[at]?.[i]));
  assert.equal(got.shape[0], moved.length, what);
  const shape = [moved.length, width];
  compare(got, { shape, data: moved.flat() }, what);
}

for (const name of [
  "merged",
  "tied",
  "stopped",
  "normed",
  "fresh",
  "early",
  "windows",
  "capped",
  "copied",
  "recurrent",
]) {
  // The file has too little of these; see below.
  const lacking = ["tied.old", "stopped.old-plain", "windows.old"];
  const ways = factsOf(name).ways.filter((way) => !lacking.includes(`${name}.${way}`));
  for (const way of ways) {
    test(`${name}, ${way}: after some steps all weights equal PyTorch's`, async () => {
      const facts = factsOf(name);
      // A list says what the older exporter leaves open.
      const isOpen = name === "tied" && way.startsWith("old");
      const options = isOpen ? { parameters: facts.parameters } : {};
      const { dict, model } = await train(name, way, options);
      const rows = new Set<string>();
      for (const [key, tensor] of Object.entries(dict)) {
        const want = facts.after[key];
        assert.ok(want !== undefined, `${key} is not in the state dict`);
        if (tensor.shape[0] === want.shape[0]) compare(tensor, want, key);
        else {
          compareRows(tensor, facts.before[key] as Numbers, want, key);
          rows.add(key);
        }
      }
      const expected = facts.parameters.filter(({ tiedTo }) => tiedTo === undefined);
      const names = model.parameters.map(({ name: own, stored }) => [own, ...(stored?.ties ?? [])]);
      assert.equal(names.length, expected.length);
      for (const { name: own } of expected) {
        assert.ok(
          names.some((all) => all.includes(own)),
          `${own} is trained`,
        );
      }
      // Only a parameter computed from a table is there in part, and then a note says so.
      const said = model.notes.filter((note) => note.includes("only the part of")).length;
      assert.equal(said, rows.size);
    });
  }
}

test("tables and scales that the older exporter folded are trained as in PyTorch, under the names that are left", async () => {
  const { after: want, parameters: trained } = factsOf("windows");
  const { dict, model } = await train("windows", "old");
  const scales = Object.keys(dict).filter((name) => name.startsWith("onnx::Mul_"));
  for (const [key, tensor] of Object.entries(dict)) {
    const at = scales.indexOf(key);
    const expected = want[at < 0 ? key : `blocks.${at}.gamma`] as Numbers;
    compare(tensor, at < 0 ? expected : { ...expected, shape: [1, 4, 1, 1] }, key);
  }
  assert.equal(Object.keys(dict).length, trained.length);
  assert.ok(model.notes.some((note) => scales.every((name) => note.includes(`${name} (trained)`))));
  const chosen = modelOf("windows", "old", { trainable: /^blocks\.1\./ });
  const { parameters } = chosen.build({ batch: 4, mode: "train" });
  assert.deepEqual(parameters.map(({ name }) => name).sort(), [
    "blocks.1.qkv.bias",
    "blocks.1.qkv.weight",
    "blocks.1.relative_position_bias_table",
    scales[1],
  ]);
});

test("a folded buffer is not taken for a parameter, and a note tells what may be either", () => {
  const { parameters, notes } = modelOf("windows", "new").build({ batch: 4, mode: "train" });
  assert.equal(parameters.length, factsOf("windows").parameters.length);
  const said = notes.filter((note) => note.includes("or from a buffer (blocks."));
  // The file was made without traces of source, which name what was read.
  assert.equal(said.length, 4);
  const { roles } = inspectModel(fileOf("windows", "old-plain"));
  const shift = roles.weights.find(({ name }) => name === "blocks.0.shift");
  assert.equal(shift?.role, "constant");
});

test("folded normalizations whose shifts are zeros count as fresh, with a note; others are refused", () => {
  const { notes } = modelOf("fresh", "new").build({ batch: 4, mode: "train" });
  const [said = ""] = notes.filter((note) => note.includes("taken as fresh"));
  assert.match(said, /: norm1, norm2, norm3, norm4\. .*export with optimize=False/);
  const plain = modelOf("fresh", "old-plain").build({ batch: 4, mode: "train" });
  assert.ok(!plain.notes.some((note) => note.includes("fresh")));
  // The shifts are a tenth; scales of zero leave nothing of the weights.
  assert.throws(() => modelOf("shifted", "new").build({ batch: 4, mode: "train" }), {
    code: "ONNX_UNSUPPORTED",
    message: /from the parameters norm1\.weight, norm1\.bias, norm2\.weight, norm2\.bias, so/,
  });
  const some = modelOf("shifted", "new", { trainable: /^(conv3|norm3)/ });
  assert.equal(some.build({ batch: 4, mode: "train" }).parameters.length, 3);
});

test("a state that was computed from parameters is refused by their names", () => {
  assert.throws(() => modelOf("state", "new").build({ batch: 4, mode: "train" }), {
    code: "ONNX_UNSUPPORTED",
    message: /computed constants from the parameters cell\.weight_ih, .*cell\.bias_hh/,
  });
  assert.throws(() => modelOf("spread", "new").build({ batch: 4, mode: "train" }), {
    code: "ONNX_UNSUPPORTED",
    message: /computed constants from the parameters bank,/,
  });
});

test("what the exporter computed weights from, or dropped, is said before the first step", () => {
  const notes = (name: string, way: string, loss?: string) =>
    modelOf(name, way, loss === undefined ? {} : { loss }).build({ batch: 4, mode: "train" }).notes;
  assert.match(notes("scaled", "old").join("\n"), /computed onnx::Gemm_\d+ from parameters/);
  assert.match(notes("copied", "old").join("\n"), /again_1\.weight, act_1\.weight: weights of mod/);
  const unsaid = notes("unsaid", "new-plain", "out").join("\n");
  assert.match(unsaid, /updates buffers whenever it runs, which its file does not do: average\./);
  assert.match(unsaid, /dropped the label smoothing of cross_entropy_loss \(0\.1\)/);
  assert.match(unsaid, /gradients of embedding are not scaled by frequency/);
});

test("one note says what the older exporter does not record of gradients, with a list of parameters too", () => {
  const saying = (name: string, way: string, options: Partial<OnnxOptions> = {}) =>
    modelOf(name, way, options)
      .build({ batch: 4, mode: "train" })
      .notes.filter((note) => note.includes("does not record"));
  const both =
    /^PyTorch's older exporter does not record detach\(\) or the padding_idx of embeddings: .*docs/;
  const one = /^PyTorch's older exporter does not record detach\(\): .*docs\/exporting\.md/;
  assert.match(saying("stopped", "old-plain").join("\n"), both);
  const { parameters } = factsOf("stopped");
  assert.match(saying("stopped", "old-plain", { parameters }).join("\n"), both);
  // Its index is a constant, so it is not an embedding.
  assert.match(saying("windows", "old-plain").join("\n"), one);
  assert.match(saying("merged", "old").join("\n"), one);
  for (const way of ["new-dynamic", "new-plain"]) assert.deepEqual(saying("stopped", way), []);
  assert.match(formatInspection(inspectModel(fileOf("stopped", "old-plain"))), /padding_idx/);
});

for (const way of factsOf("recurrent").ways) {
  test(`recurrent, ${way}: after AdamW the state dict and the outputs of model.onnx are PyTorch's`, async () => {
    const { adamw: want = {}, adamwOut, inputs, batch } = factsOf("recurrent");
    const optimizer = adamw({ learningRate: 0.01, weightDecay: 0.1, decay: {} });
    const { dict, model } = await train("recurrent", way, {}, optimizer);
    // Like load_state_dict(strict=True): exactly these names, with these shapes.
    assert.deepEqual(Object.keys(dict).sort(), Object.keys(want).sort());
    for (const [key, tensor] of Object.entries(dict)) compare(tensor, want[key] as Numbers, key);
    // There are no notes but the one that every file of the older exporter gets.
    const [always = "", ...more] = way.startsWith("old") ? model.notes : ["", ...model.notes];
    assert.deepEqual(more, []);
    assert.equal(always.includes("does not record detach()"), way.startsWith("old"));
    // Weights of the head may be transposed there.
    const forward = forwardGraph(modelOf("recurrent", way).build({ batch, mode: "eval" }));
    const weights = Object.fromEntries(
      model.parameters.map(({ name, stored }) => {
        const tensor = dict[name] as Tensor;
        return [name, stored?.transposed === true ? transpose(tensor) : tensor];
      }),
    );
    const session = await ort.InferenceSession.create(encodeModel(bindWeights(forward, weights)));
    const { shape, data } = inputs["x"] as Numbers;
    const x = new ort.Tensor("float32", [...data], [...shape]);
    const { out } = await session.run({ x });
    const got = { dtype: "float32", shape: out?.dims ?? [], values: out?.data } as const;
    assert.ok(got.values instanceof Float32Array);
    compare(tensorFrom("float32", got.shape, [...got.values]), adamwOut as Numbers, "out");
  });
}

test("a layer whose order of gates the file does not tell keeps ONNX's names, with a note", () => {
  const file = path.join(folder, "../recurrent/lstm-new.onnx");
  const model = onnx(file, { loss: mse({ prediction: "y", target: "target" }) });
  const { parameters, notes } = model.build({ batch: 4, mode: "train" });
  assert.ok(parameters.some(({ name, type }) => name === "val_111" && type.shape.length === 3));
  assert.ok(
    notes.some((note) => /val_111.*weights of recurrent layers as ONNX packs them/.test(note)),
  );
});

test("the start of a run says what is trained, constant and tied", () => {
  const model = modelOf("tied", "new-plain").build({ batch: 4, mode: "train" });
  const expected = "trains 7 tensors (84), 2 constants, 1 tie: words.weight = head.weight";
  assert.equal(model.trains, expected);
});

test("inspect says of each weight what it is and why", () => {
  const { roles } = inspectModel(fileOf("tied", "new"));
  const roleOf = (name: string) => roles.weights.find((weight) => weight.name === name)?.role;
  assert.equal(roleOf("mask"), "constant");
  assert.equal(roleOf("wave"), "constant");
  assert.equal(roleOf("token"), "parameter");
  const text = formatInspection(inspectModel(fileOf("merged", "new")));
  assert.match(text, /body\.1\.1\.weight +\[4\] +trained +a parameter by the file's signature/);
  assert.match(text, /body\.0\.0\.bias +\[4\] +trained/);
});

test("a pattern of module names chooses the weights of either exporter's files", () => {
  for (const way of factsOf("merged").ways) {
    const { parameters } = modelOf("merged", way, { trainable: /^body\.1\.0\./ }).build({
      batch: 4,
      mode: "train",
    });
    assert.deepEqual(parameters.map(({ name }) => name).sort(), [
      "body.1.0.bias",
      "body.1.0.weight",
    ]);
  }
  const biases = modelOf("merged", "new", { trainable: /bias$/ }).build({
    batch: 4,
    mode: "train",
  });
  assert.ok(biases.notes.some((note) => note.startsWith("only biases are trained")));
  assert.throws(
    () => modelOf("merged", "new", { trainable: /absent/ }).build({ batch: 4, mode: "train" }),
    { code: "INVALID_OPTION", message: /none matches/ },
  );
});

test("a list of parameters decides names, frozen ones and ties", async () => {
  const facts = factsOf("tied");
  const list = facts.parameters.map((item) =>
    item.name === "mix.bias" ? { ...item, requiresGrad: false } : item,
  );
  const { dict, model } = await train("tied", "old-plain", { parameters: list });
  assert.ok(!("mix.bias" in dict) && model.graph.constants.has("mix.bias"));
  assert.deepEqual(
    toNumbers(dict["head.weight"] as Tensor),
    toNumbers(dict["words.weight"] as Tensor),
  );
  const refused = (way: string, parameters: readonly DeclaredParameter[], message: RegExp) =>
    assert.throws(() => modelOf("tied", way, { parameters }).build({ batch: 4, mode: "train" }), {
      code: "INVALID_OPTION",
      message,
    });
  refused("old-plain", [...list, { name: "nowhere.weight" }], /in the file: nowhere\.weight\./);
  // The older exporter made a constant of its rows.
  refused("old", list, /not in the file: places\.weight\./);
});

test("notes before the first step say what a file leaves open", () => {
  const { notes } = modelOf("tied", "old").build({ batch: 4, mode: "train" });
  const open = notes.find((note) => note.startsWith("The file does not say which of these"));
  assert.match(open ?? "", /wave \(trained\)/);
  assert.match(open ?? "", /onnx::Add_\d+ \(trained\)/);
});

test("a state dict finds weights by their values, also transposed ones", async () => {
  const facts = factsOf("merged");
  const tensors = new Map(
    facts.parameters.map(({ name }) => {
      const { shape, data } = facts.before[name] as Numbers;
      return [`net.${name}`, tensorFrom("float32", shape, data)];
    }),
  );
  const list = facts.parameters.map(({ name }) => ({ name: `net.${name}` }));
  const state = path.join(scratch, "state.safetensors");
  await writeSafetensors(state, tensors, { parameters: JSON.stringify(list) });
  const { dict } = await train("merged", "old-plain", { parameters: state });
  const names = Object.keys(dict).sort();
  assert.deepEqual(names, list.map(({ name }) => name).sort());
  compare(
    dict["net.body.0.0.weight"] as Tensor,
    facts.after["body.0.0.weight"] as Numbers,
    "net.body.0.0.weight",
  );
  tensors.set("net.scale", tensorFrom("float32", [], [0.9]));
  await writeSafetensors(state, tensors, { parameters: JSON.stringify(list) });
  assert.throws(
    () => modelOf("merged", "old-plain", { parameters: state }).build({ batch: 4, mode: "train" }),
    { code: "INVALID_OPTION", message: /net\.scale/ },
  );
});
