/**
 * Checks that a program from elsewhere fits together: places lie within buffers, graphs fit the
 * tensors that they run on, and groups are known. It walks through all of a program, so that
 * whatever names a place is checked.
 */
import { LockstepError } from "../errors.ts";
import { type Graph, typeOf } from "../graph/index.ts";
import { byteLength, bytesPerElement, formatType, sameType } from "../tensor/index.ts";
import { collectiveBytes } from "./costs.ts";
import {
  type BufferPlace,
  type BufferSpace,
  type CollectiveStage,
  type Extent,
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
    const { buffers, graphs: _, ...rest } = this.#program;
    for (const [name, { byteLength: bytes, space }] of buffers) {
      if (!Number.isSafeInteger(bytes) || bytes < 0) fail(`buffer "${name}" has ${bytes} bytes`);
      if (!SPACES.has(space)) fail(`buffer "${name}" lies in "${space}", which is no space`);
    }
    this.#walk("", rest);
  }

  /** Checks a part of the program, found at these keys, and all parts of it. */
  #walk(where: string, part: unknown): void {
    if (typeof part !== "object" || part === null || isGraph(part)) return;
    if (isPlace(part)) {
      const bytes = "type" in part ? byteLength(part.type) : (part.byteLength ?? 0);
      return this.#within(where, part, bytes);
    }
    if (isRun(part)) this.#run(where, part);
    if (isOfMode(part, "collective")) this.#collective(part);
    if (isOfMode(part, "tasks")) {
      for (const [index, { name, after }] of part.tasks.entries()) {
        if (after.every((needed) => needed >= 0 && needed < index)) continue;
        fail(`task "${name}" waits for one that does not come before it`);
      }
    }
    const parts: Iterable<[string, unknown]> = part instanceof Map ? part : Object.entries(part);
    for (const [key, own] of parts) this.#walk(`${where}/${key}`, own);
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

/** Whether a part of a program is a place, with the type or the bytes of what lies there. */
function isPlace(part: object): part is TensorRef | (BufferPlace & Partial<Extent>) {
  return "buffer" in part && "byteOffset" in part;
}

function isRun(part: object): part is Run {
  return "graph" in part && "inputs" in part && "outputs" in part;
}

function isOfMode<Mode extends Stage["mode"]>(
  part: object,
  mode: Mode,
): part is Extract<Stage, { readonly mode: Mode }> {
  return "mode" in part && part.mode === mode;
}

export function isGraph(part: object): part is Graph {
  return "nodes" in part && "constants" in part && part.constants instanceof Map;
}

function fail(what: string): never {
  throw new LockstepError("INVALID_GRAPH", `The program does not fit together: ${what}.`);
}
