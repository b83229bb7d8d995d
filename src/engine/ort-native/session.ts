/**
 * A compiled graph inside ONNX Runtime. All executables of equal graphs share it; the last one
 * releases it.
 */
import koffi from "koffi";
import { LockstepError } from "../../errors.ts";
import type { Graph } from "../../graph/index.ts";
import type { Address } from "../../memory/index.ts";
import { encodeModel } from "../../onnx/index.ts";
import { bytesPerElement, DTYPES, type Tensor, type TensorType } from "../../tensor/index.ts";
import type { Handle, Status } from "./api.ts";
import { fuseTransposedProducts, transposeFirst } from "./fuse.ts";
import { type LoweredGraph, lowerGraph } from "./lower.ts";
import { regroup } from "./regroup.ts";
import type { Runtime } from "./runtime.ts";
import { fuseScales } from "./scales.ts";
import { writeOutUnsupported } from "./write-out.ts";

const ALL_OPTIMIZATIONS = 99;
const PARALLEL = 1;
const DISABLED_OPTIMIZERS = "optimization.disable_specified_optimizers";
/**
 * Optimizers of the library that are off. The first undoes a transposition of `fuse.ts`. The others
 * replace nodes by one that rounds otherwise, but only where nothing else reads what is between them,
 * so a piece of a pass had other bits than the whole.
 */
const NOT_USED = [
  "GemmTransposeFusion",
  "GeluFusionL1",
  "GeluFusionL2",
  "LayerNormFusionL1",
  "LayerNormFusionL2",
  "SimplifiedLayerNormFusion",
  "SkipLayerNormFusion",
];

export interface SessionSettings {
  readonly threads: number;
  readonly spin: boolean;
  /** The beginning of the path of a profile; undefined for no profile. */
  readonly profile: string | undefined;
  readonly maxEmbeddedBytes?: number | undefined;
}

export class Session {
  readonly handle: Handle;
  readonly inputNames: NativeStrings;
  readonly outputNames: NativeStrings;
  readonly #runtime: Runtime;
  /** The values of the last inputs: constants that lie outside of the model. */
  readonly lifted: readonly Handle[];
  /** Keeps the bytes of `lifted` from being garbage-collected. */
  readonly #kept: readonly Uint8Array[];
  #released = false;

  constructor(runtime: Runtime, handle: Handle, { graph, lifted }: LoweredGraph) {
    this.#runtime = runtime;
    this.handle = handle;
    this.inputNames = new NativeStrings(graph.inputs);
    this.outputNames = new NativeStrings(graph.outputs);
    this.#kept = lifted.map(alignedBytes);
    this.lifted = lifted.map((tensor, index) => {
      const bytes = this.#kept[index] ?? tensor.bytes;
      return wrapTensor(runtime, tensor, koffi.address(bytes), bytes.byteLength);
    });
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    const { functions: f } = this.#runtime.api;
    for (const value of this.lifted) f.releaseValue(value);
    f.releaseSession(this.handle);
  }
}

/**
 * The graph in the form in which it is compiled. Applying this twice changes nothing, so pieces of
 * the result compile as they do within the whole.
 */
export function fastForm(graph: Graph): Graph {
  const grouped = regroup(fuseTransposedProducts(writeOutUnsupported(graph)));
  // Where a Reshape stood between a transposition and a product, there is none now.
  return fuseScales(transposeFirst(fuseTransposedProducts(grouped)));
}

/** Compiles off the JavaScript thread. Throws ENGINE_FAILED. */
export async function createSession(
  runtime: Runtime,
  graph: Graph,
  settings: SessionSettings,
): Promise<Session> {
  const lowered = lowerGraph(fastForm(graph), settings.maxEmbeddedBytes);
  const handle = await compileModel(runtime, encodeModel(lowered.graph), settings, graph.name);
  runtime.arena.prepare(handle);
  return new Session(runtime, handle, lowered);
}

/** A tensor as ONNX Runtime sees it, over memory that is not moved. It must be released. */
export function wrapTensor(
  runtime: Runtime,
  type: TensorType,
  address: Address,
  byteLength: number,
): Handle {
  const { functions: f, made } = runtime.api;
  const { dtype, shape } = type;
  const { onnx } = DTYPES[dtype];
  return made<Handle>("wrapping a tensor", (out) =>
    f.createTensorWithData(runtime.memoryInfo, address, byteLength, shape, shape.length, onnx, out),
  );
}

/**
 * The bytes of a constant. They are copied if a view of a file does not start at a multiple of the
 * element's size.
 */
function alignedBytes({ dtype, bytes }: Tensor): Uint8Array {
  return koffi.address(bytes) % BigInt(bytesPerElement(dtype)) === 0n ? bytes : bytes.slice();
}

/** Compiles the bytes of a model to a session. Throws ENGINE_FAILED. */
export async function compileModel(
  runtime: Runtime,
  model: Uint8Array,
  settings: SessionSettings,
  name: string,
): Promise<Handle> {
  const { poolUsable } = runtime.state;
  try {
    return await compileOnce(runtime, model, settings, name);
  } catch (error) {
    if (!poolUsable || !/CreateEnvWithGlobalThreadPools/.test(String(error))) throw error;
    runtime.state.poolUsable = false;
    return compileOnce(runtime, model, settings, name);
  }
}

async function compileOnce(
  runtime: Runtime,
  model: Uint8Array,
  settings: SessionSettings,
  name: string,
): Promise<Handle> {
  const { functions: f, check, made } = runtime.api;
  const doing = `compiling graph "${name}"`;
  const options = made<Handle>(doing, (out) => f.createSessionOptions(out));
  try {
    check(f.setSessionGraphOptimizationLevel(options, ALL_OPTIMIZATIONS), doing);
    // Memory patterns of earlier executions plan one block for all activations, which is 1.7 times
    // as large as needed.
    check(f.disableMemPattern(options), doing);
    // In its sequential mode, the library keeps the memory of a dead value for a later value of the
    // same shape: a GPT step then holds 455 MiB instead of 406 MiB. On a single CPU stream,
    // execution is sequential in either mode.
    check(f.setSessionExecutionMode(options, PARALLEL), doing);
    check(f.addSessionConfigEntry(options, "session.use_env_allocators", "1"), doing);
    check(f.addSessionConfigEntry(options, DISABLED_OPTIMIZERS, NOT_USED.join(";")), doing);
    const { poolThreads, poolSpins, state } = runtime;
    if (state.poolUsable && settings.threads === poolThreads && settings.spin === poolSpins) {
      check(f.disablePerSessionThreads(options), doing);
    } else {
      check(f.setIntraOpNumThreads(options, settings.threads), doing);
      check(f.setInterOpNumThreads(options, 1), doing);
      const spin = settings.spin ? "1" : "0";
      check(f.addSessionConfigEntry(options, "session.intra_op.allow_spinning", spin), doing);
    }
    if (settings.profile !== undefined) check(f.enableProfiling(options, settings.profile), doing);
    const out: [Handle | null] = [null];
    const status = await new Promise<Status>((resolve, reject) => {
      f.createSessionFromArray.async(
        runtime.env,
        model,
        model.byteLength,
        options,
        out,
        (error, result) => (error === null ? resolve(result) : reject(asError(error))),
      );
    });
    check(status, doing);
    return out[0] as Handle;
  } finally {
    f.releaseSessionOptions(options);
  }
}

/** An array of pointers in memory that does not move, as C wants its arguments. */
export class NativePointers {
  readonly values: BigUint64Array;
  readonly address: Address;

  constructor(values: readonly Address[]) {
    this.values = new BigUint64Array(new ArrayBuffer(8 * Math.max(1, values.length)));
    this.values.set(values);
    this.address = koffi.address(this.values);
  }
}

/** An array of C strings. */
export class NativeStrings {
  readonly #text: Uint8Array;
  readonly #pointers: NativePointers;
  readonly count: number;

  constructor(strings: readonly string[]) {
    const encoded = strings.map((text) => Buffer.from(`${text}\0`));
    const total = encoded.reduce((sum, { length }) => sum + length, 0);
    this.#text = new Uint8Array(new ArrayBuffer(Math.max(1, total)));
    const base = koffi.address(this.#text);
    const pointers: Address[] = [];
    let offset = 0;
    for (const text of encoded) {
      this.#text.set(text, offset);
      pointers.push(base + BigInt(offset));
      offset += text.length;
    }
    this.#pointers = new NativePointers(pointers);
    this.count = strings.length;
  }

  get address(): Address {
    return this.#pointers.address;
  }
}

export function asError(error: unknown): Error {
  return error instanceof Error
    ? error
    : new LockstepError("ENGINE_FAILED", `The engine could not be called: ${String(error)}`);
}
