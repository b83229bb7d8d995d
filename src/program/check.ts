/**
 * Checks that a program from elsewhere fits together: places lie within buffers, graphs fit the
 * tensors that they run on, and groups are known.
 */
import { LockstepError } from "../errors.ts";
import { typeOf } from "../graph/index.ts";
import { byteLength, bytesPerElement, formatType, sameType } from "../tensor/index.ts";
import { collectiveBytes } from "./costs.ts";
import {
  type BufferPlace,
  type BufferSpace,
  type CollectiveStage,
  type Run,
  type Stage,
  type TensorRef,
} from "./program.ts";
import type { StepProgram } from "./step-program.ts";

/** @throws INVALID_GRAPH with the first fault */
export function checkProgram(program: StepProgram): StepProgram {
  new Check(program).all();
  return program;
}

const SPACES: ReadonlySet<BufferSpace> = new Set(["host", "device", "disk"]);

class Check {
  readonly #program: StepProgram;

  constructor(program: StepProgram) {
    this.#program = program;
  }

  all(): void {
    const { buffers, sides, slots, batch, parameters, scalars, held, evaluation } = this.#program;
    for (const [name, { byteLength: bytes, space }] of buffers) {
      if (!Number.isSafeInteger(bytes) || bytes < 0) fail(`buffer "${name}" has ${bytes} bytes`);
      if (!SPACES.has(space)) fail(`buffer "${name}" lies in "${space}", which is no space`);
    }
    for (const side of sides) {
      const { totals, compute, commit, evaluate, pieces = [], gradients, states } = side;
      for (const stage of [...totals, ...compute, ...commit, ...evaluate, ...pieces]) {
        this.#stage(stage);
      }
      for (const run of gradients) this.#run("gradients", run);
      this.#refs("states", states.values());
    }
    const { summary, counted, stop, paces } = this.#program;
    const single = [summary, counted?.none, counted?.instead, stop, paces].filter(
      (ref) => ref !== undefined,
    );
    const places = scalars.flatMap((scalar) => Object.values(scalar.places));
    const fields = (evaluation?.sizes ?? []).flatMap((size) => [
      ...size.fields.values(),
      size.sums,
    ]);
    this.#refs("the program", [
      ...single,
      ...places,
      ...fields,
      ...[slots, batch, parameters].flatMap((refs) => [...refs.values()]),
    ]);
    for (const { buffer, byteOffset, byteLength: bytes } of held) {
      this.#within("slots", { buffer, byteOffset }, bytes);
    }
  }

  #stage(stage: Stage): void {
    switch (stage.mode) {
      case "tasks":
        for (const [index, task] of stage.tasks.entries()) {
          if (task.after.some((needed) => !(needed >= 0 && needed < index))) {
            fail(`task "${task.name}" waits for one that does not come before it`);
          }
          for (const own of task.work) this.#stage(own);
        }
        break;
      case "collective":
        this.#collective(stage);
        break;
      default:
        for (const run of stage.runs) this.#run(stage.name, run);
    }
  }

  #collective(stage: CollectiveStage): void {
    const { name, group, call, data, into } = stage;
    if (!this.#program.groups.has(group)) fail(`"${name}" names the group "${group}"`);
    if (call.kind === "barrier") return;
    if (data === undefined) fail(`"${name}" does not say where its data lie`);
    const places = call.kind === "allToAll" ? [into] : [data];
    for (const place of places) {
      if (place === undefined) fail(`"${name}" does not say where its results go`);
      this.#within(name, place, collectiveBytes(stage));
    }
    if (call.kind === "allToAll") {
      const sent = call.sendCounts.reduce((sum, count) => sum + count, 0);
      this.#within(name, data, sent * bytesPerElement(call.dtype));
    }
  }

  #run(where: string, { graph: name, inputs, outputs }: Run): void {
    const spec = this.#program.graphs.get(name);
    if (spec === undefined) fail(`"${where}" runs "${name}", which is no graph`);
    const { graph } = spec;
    for (const [own, refs] of [
      [graph.inputs, inputs],
      [graph.outputs, outputs],
    ] as const) {
      const missing = own.find((value) => refs[value] === undefined);
      if (missing !== undefined) fail(`"${where}" gives no place to "${missing}" of "${name}"`);
      for (const [value, ref] of Object.entries(refs)) {
        if (!own.includes(value)) fail(`"${where}" binds "${value}", which "${name}" has not`);
        const type = typeOf(graph, value);
        if (!sameType(type, ref.type)) {
          fail(
            `"${where}" binds ${formatType(ref.type)} to "${value}", which is ${formatType(type)}`,
          );
        }
      }
    }
    this.#refs(where, [...Object.values(inputs), ...Object.values(outputs)]);
  }

  #refs(where: string, refs: Iterable<TensorRef>): void {
    for (const ref of refs) this.#within(where, ref, byteLength(ref.type));
  }

  #within(where: string, { buffer, byteOffset }: BufferPlace, bytes: number): void {
    const size = this.#program.buffers.get(buffer)?.byteLength;
    if (size === undefined) fail(`"${where}" names the buffer "${buffer}", which is none`);
    const isInside =
      Number.isSafeInteger(byteOffset) && byteOffset >= 0 && byteOffset + bytes <= size;
    if (!isInside) {
      fail(`"${where}" puts ${bytes} bytes at ${byteOffset} of "${buffer}", which has ${size}`);
    }
  }
}

function fail(what: string): never {
  throw new LockstepError("INVALID_GRAPH", `The program does not fit together: ${what}.`);
}
