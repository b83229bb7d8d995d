/** A mesh: ranks arranged along named axes. The index on the last axis varies fastest. */
import { assert, LockstepError } from "../errors.ts";

export interface MeshAxis {
  readonly name: string;
  readonly size: number;
}

export interface Mesh {
  readonly axes: readonly MeshAxis[];
  /** The number of ranks. */
  readonly size: number;
}

/**
 * `createMesh({ data: 4, tensor: 2 })`: ranks 0 and 1 have the same index on `data`. @throws
 * INVALID_OPTION
 */
export function createMesh(axes: Readonly<Record<string, number>>): Mesh {
  const list = Object.entries(axes).map(([name, size]) => ({ name, size }));
  for (const { name, size } of list) {
    if (Number.isInteger(size) && size >= 1) continue;
    throw new LockstepError("INVALID_OPTION", `The axis "${name}" of a mesh has size ${size}.`);
  }
  return { axes: list, size: list.reduce((product, { size }) => product * size, 1) };
}

/** @throws INVALID_OPTION if the mesh has no such axis */
export function axisOf(mesh: Mesh, name: string): MeshAxis {
  const axis = mesh.axes.find((candidate) => candidate.name === name);
  if (axis !== undefined) return axis;
  throw new LockstepError("INVALID_OPTION", `The mesh ${formatMesh(mesh)} has no axis "${name}".`);
}

/**
 * The ranks that differ from `rank` in their index on these axes only, ascending, including `rank`.
 */
export function groupOf(mesh: Mesh, axes: readonly string[], rank: number): number[] {
  for (const name of axes) axisOf(mesh, name);
  const varied = mesh.axes
    .filter(({ name }) => axes.includes(name))
    .map(({ name, size }) => ({ size, stride: strideOf(mesh, name, rank) }));
  const first = varied.reduce(
    (at, { size, stride }) => at - (Math.floor(rank / stride) % size) * stride,
    rank,
  );
  // Later axes vary faster, so the ranks come in ascending order.
  return varied.reduce<number[]>(
    (ranks, { size, stride }) =>
      ranks.flatMap((start) => Array.from({ length: size }, (_, place) => start + place * stride)),
    [first],
  );
}

function strideOf(mesh: Mesh, name: string, rank: number): number {
  assert(rank >= 0 && rank < mesh.size, `rank ${rank} is in the mesh`);
  const at = mesh.axes.indexOf(axisOf(mesh, name));
  return mesh.axes.slice(at + 1).reduce((product, { size }) => product * size, 1);
}

/** Formats a mesh as `data=4 tensor=2`. */
export function formatMesh({ axes }: Mesh): string {
  return axes.map(({ name, size }) => `${name}=${size}`).join(" ");
}
