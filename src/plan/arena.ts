/**
 * Places the values that pieces of a computation pass on in one arena, in which places are reused.
 */

const ALIGNMENT = 64; // bytes

export interface Arena {
  /** The offset of each value in bytes. */
  readonly offsets: ReadonlyMap<string, number>;
  readonly byteLength: number;
  /** The bytes that the arena would take if no place were reused. */
  readonly withoutReuse: number;
}

/** The inputs and outputs of a piece. */
export interface Piecewise {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

interface Life {
  readonly name: string;
  readonly bytes: number;
  /** The piece that makes the value, and the last that reads it. */
  readonly first: number;
  readonly last: number;
}

/**
 * Plans places for values that are made and read by pieces that run one after the other.
 * @param bytesOf returns the bytes of a value that is to be placed; undefined for others
 */
export function planArena(
  pieces: readonly Piecewise[],
  bytesOf: (name: string) => number | undefined,
): Arena {
  const lives = livesOf(pieces, bytesOf);
  lives.sort((a, b) => b.bytes - a.bytes || a.first - b.first || (a.name < b.name ? -1 : 1));
  const offsets = new Map<string, number>();
  /** By their starts. */
  const placed: { life: Life; start: number; end: number }[] = [];
  let byteLength = 0;
  for (const life of lives) {
    const rivals = placed.filter(({ life: { first, last } }) => {
      return first <= life.last && life.first <= last;
    });
    const start = firstGap(rivals, life.bytes);
    const end = start + life.bytes;
    const behind = placed.findLastIndex((other) => other.start <= start);
    placed.splice(behind + 1, 0, { life, start, end });
    offsets.set(life.name, start);
    byteLength = Math.max(byteLength, end);
  }
  return { offsets, byteLength, withoutReuse: lives.reduce((sum, { bytes }) => sum + bytes, 0) };
}

function livesOf(
  pieces: readonly Piecewise[],
  bytesOf: (name: string) => number | undefined,
): Life[] {
  const lives = new Map<string, Life>();
  for (const [index, { inputs, outputs }] of pieces.entries()) {
    for (const name of outputs) {
      const bytes = bytesOf(name);
      if (bytes === undefined) continue;
      const aligned = Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
      lives.set(name, { name, bytes: aligned, first: index, last: index });
    }
    for (const name of inputs) {
      const life = lives.get(name);
      if (life !== undefined) lives.set(name, { ...life, last: index });
    }
  }
  return [...lives.values()];
}

/** @param taken in the order of their starts */
function firstGap(taken: readonly { start: number; end: number }[], bytes: number): number {
  let at = 0;
  for (const { start, end } of taken) {
    if (start - at >= bytes) return at;
    at = Math.max(at, end);
  }
  return at;
}
