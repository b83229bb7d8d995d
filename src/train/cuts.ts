/**
 * Which cuts of the gradient graph give the bits of the whole graph. A rank checks a cut once, and
 * tells the others, so that a newcomer with the same engine and processor does not check it again
 * while all wait.
 */
import { createHash } from "node:crypto";
import { cpus } from "node:os";
import { type Group, tellNumbers } from "../collectives/index.ts";
import { cutGivesSameBits, type Instance } from "../execute/index.ts";
import { hashGraph } from "../graph/index.ts";
import type { Side, StepProgram } from "../program/index.ts";

/** Bytes of a hash that a number holds exactly. */
const KEY_BYTES = 6;
const UNKNOWN = -1;

export class Cuts {
  readonly #known = new Map<number, boolean>();

  /**
   * Whether the pieces of the next step give the bits of the whole, with the batch that is loaded. All
   * ranks call it together; a rank without pieces has nothing to check.
   */
  async areRight(
    instance: Instance,
    { plan, from }: { readonly plan: StepProgram; readonly from: 0 | 1 },
    group: Group | undefined,
  ): Promise<boolean> {
    const side = plan.sides[from];
    const key = side.pieces === undefined ? 0 : keyOf(instance, plan, side);
    const found = this.#known.get(key);
    const own = [key, found === undefined ? UNKNOWN : Number(found)];
    const all = group === undefined ? [own] : await tellNumbers(group.transport, own);
    if (key === 0) return true;
    const told = all.find(([theirs, known]) => theirs === key && known !== UNKNOWN)?.[1];
    const isRight = told === undefined ? await cutGivesSameBits(instance, side) : told === 1;
    this.#known.set(key, isRight);
    return isRight;
  }
}

/** The graphs, and all else that decides how the engine runs them. */
function keyOf({ device }: Instance, { graphs }: StepProgram, side: Side): number {
  const { gradients, pieces = [] } = side;
  const runs = [...gradients, ...pieces.flatMap((stage) => stage.runs)];
  const hashes = [...new Set(runs.map(({ graph }) => graph))].map((name) => {
    const spec = graphs.get(name);
    return spec === undefined ? name : `${hashGraph(spec.graph)} ${spec.threads}`;
  });
  const machine = [device.version, process.arch, cpus()[0]?.model ?? ""];
  const text = [...machine, ...hashes].join("\n");
  return createHash("sha256").update(text).digest().readUIntBE(0, KEY_BYTES);
}
