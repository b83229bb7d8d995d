/** Imports a file for any number of samples, whatever number it was exported with. */
import { LockstepError } from "../errors.ts";
import type { GraphBuilder, Value } from "../graph/index.ts";
import type { OnnxFile } from "../onnx/index.ts";
import { newBuilder, operatorTable } from "../ops/index.ts";
import {
  type Imported,
  type ImportedState,
  type ImportIntoOptions,
  type ImportSink,
  importInto,
} from "./import.ts";
import { drawing } from "./random.ts";
import { planRebatch, rebatch } from "./rebatch.ts";
import type { Rebatching } from "./remake.ts";

/**
 * The size that the first dim of every input has in the file; undefined if it is open, or if the
 * sizes differ.
 */
export function fixedBatch(file: OnnxFile, options: ImportIntoOptions): number | undefined {
  const { graph } = file.model;
  const initial = new Set(graph.initializer.map(({ name }) => name));
  const sizes = graph.input
    .filter(({ name }) => !initial.has(name))
    .map(({ name, type }) => {
      const given = options.shapes?.[name];
      return given === undefined ? type?.tensorType?.shape?.dim[0]?.dimValue : given[0];
    });
  const [size] = sizes;
  return size !== undefined && size > 0 && sizes.every((own) => own === size) ? size : undefined;
}

/**
 * Does the same as `importInto` for `options.batch` samples. If the file has another batch size,
 * its graph is rebuilt for this one. Throws ONNX_UNSUPPORTED, naming the node in the way, if that
 * is impossible.
 */
export function importAtBatch(
  builder: GraphBuilder,
  file: OnnxFile,
  sink: ImportSink,
  options: ImportIntoOptions & { readonly batch: number },
): Imported {
  const from = fixedBatch(file, options);
  if (from === undefined || from === options.batch) {
    return importInto(builder, file, sink, options);
  }
  const record = new Recording();
  const scratch = newBuilder(builder.name);
  const imported = importInto(scratch, file, record.sink(scratch, sink), {
    ...options,
    batch: from,
  });
  const plan = planned(scratch, record, imported, file, from);
  if (sink.draw !== undefined) checkDrawn(plan, file, from);
  const { values, states } = record.replay(sink, options.batch);
  const made = rebatch(plan, builder, options.batch, values, {
    inputs: new Set(record.inputs.keys()),
    node: (node, x) => {
      const fields = [...record.inputs.keys()].flatMap((name) => values.get(name) ?? []);
      const drawn = sink.draw && drawing(node, x, sink.draw, fields);
      if (drawn !== undefined) return drawn;
      const rate = record.dropouts.get(node.outputs[0] ?? "");
      return rate === undefined ? undefined : sink.dropout?.(x, rate);
    },
  });
  for (const { name, next } of record.updates) states.get(name)?.update(valueOf(made, next));
  const mapped = (from_: ReadonlyMap<string, Value>) =>
    new Map([...from_].map(([name, value]) => [name, valueOf(made, value)]));
  return {
    inputs: mapped(imported.inputs),
    outputs: mapped(imported.outputs),
    leftOut: imported.leftOut,
    find: (name) => {
      const value = imported.find(name);
      return value && made.get(value.name);
    },
  };
}

function planned(
  scratch: GraphBuilder,
  record: Recording,
  imported: Imported,
  file: OnnxFile,
  from: number,
): Rebatching {
  const graph = scratch.build([
    ...imported.outputs.values(),
    ...record.updates.map(({ next }) => next),
  ]);
  try {
    return planRebatch(graph, from, new Set(record.inputs.keys()));
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
    const [reason = ""] = error.message.split("\n");
    throw new LockstepError(
      "ONNX_UNSUPPORTED",
      `${file.name} was exported for batches of ${from} and cannot be rebuilt for other sizes: ${reason}`,
      {
        hint:
          `Train with a batch of ${from} in one micro-batch, or export it with a dynamic batch` +
          // With one sample, nothing distinguishes the index of a sample from any other zero.
          (from === 1 ? ", or from an example of two samples or more." : "."),
        fields: { file: file.name, batch: from },
        cause: error,
      },
    );
  }
}

/**
 * Throws for random numbers of a shape that the file fixes: they are only correct for its own
 * batch.
 */
function checkDrawn({ graph }: Rebatching, file: OnnxFile, from: number): void {
  const told = graph.nodes.find(
    ({ op, inputs }) => inputs.length === 0 && operatorTable.find(op)?.draws === true,
  );
  if (told === undefined) return;
  throw new LockstepError(
    "ONNX_UNSUPPORTED",
    `${file.name}: node "${told.name}" (${told.op}) draws numbers for batches of ${from} only.`,
    {
      hint: `Train with micro-batches of ${from} (batch divided by microBatches), or draw with randn_like of an activation.`,
      fields: { file: file.name, node: told.name, batch: from },
    },
  );
}

function valueOf(made: ReadonlyMap<string, Value>, value: Value): Value {
  const found = made.get(value.name);
  if (found !== undefined) return found;
  throw new LockstepError("ONNX_UNSUPPORTED", `"${value.name}" is the same for any input.`);
}

/** Records what a file requests of its sink, so that it can be requested again. */
class Recording {
  readonly inputs = new Map<string, Value>();
  /** The dropout rates, by the name of the output of the node that stands in for the dropout. */
  readonly dropouts = new Map<string, number>();
  readonly updates: { readonly name: string; readonly next: Value }[] = [];
  readonly #parameters = new Map<string, Parameters<ImportSink["parameter"]>>();
  readonly #states = new Map<string, Parameters<ImportSink["parameter"]>[1]>();

  sink(builder: GraphBuilder, asked: ImportSink): ImportSink {
    return {
      input: (name, type) => {
        const value = builder.input(name, type);
        this.inputs.set(name, value);
        return value;
      },
      parameter: (name, tensor, weight) => {
        this.#parameters.set(name, [name, tensor, weight]);
        return builder.input(name, { dtype: tensor.dtype, shape: tensor.shape });
      },
      ...(asked.state && {
        state: (name, tensor) => {
          this.#states.set(name, tensor);
          const value = builder.input(name, { dtype: tensor.dtype, shape: tensor.shape });
          return { value, update: (next) => this.updates.push({ name, next }) };
        },
      }),
      ...(asked.dropout && {
        dropout: (x, rate) => {
          const value = builder.one("Identity", [x]);
          this.dropouts.set(value.name, rate);
          return value;
        },
      }),
    };
  }

  replay(
    sink: ImportSink,
    batch: number,
  ): { values: ReadonlyMap<string, Value>; states: ReadonlyMap<string, ImportedState> } {
    const values = new Map<string, Value>();
    const states = new Map<string, ImportedState>();
    for (const [name, { dtype, shape }] of this.inputs) {
      values.set(name, sink.input(name, { dtype, shape: [batch, ...shape.slice(1)] }));
    }
    for (const [name, asked] of this.#parameters) values.set(name, sink.parameter(...asked));
    for (const [name, tensor] of this.#states) {
      const state = sink.state?.(name, tensor);
      if (state === undefined) continue;
      states.set(name, state);
      values.set(name, state.value);
    }
    return { values, states };
  }
}
