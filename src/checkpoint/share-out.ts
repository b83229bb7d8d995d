/**
 * Decides which rank writes which bytes of a checkpoint, and where they lie in its shard. Pure: it
 * knows no file, no group and no memory.
 */
import { encodeHeader } from "../safetensors/index.ts";
import { byteLength, bytesPerElement, type TensorType } from "../tensor/index.ts";

/** Bytes [from, to) of a tensor, and the one rank that holds them; undefined if all ranks do. */
export interface HeldPart {
  readonly from: number;
  readonly to: number;
  readonly owner: number | undefined;
}

/** A tensor of the state, in the parts that ranks hold: in order, without a gap. */
export interface HeldTensor extends TensorType {
  readonly name: string;
  readonly parts: readonly HeldPart[];
}

/** Bytes [from, to) of a tensor. */
export interface Piece {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export interface ShareOutOptions {
  /** The ranks that can write into the folder. */
  readonly writers: readonly number[];
  /** One of the writers. It also writes what ranks hold that cannot write. */
  readonly leader: number;
}

/**
 * Returns what each writer writes. A part that one writer holds is written by it. A tensor that all
 * ranks hold is written once and whole, by the writer that has the least to write so far, largest
 * tensors first.
 */
export function shareOut(
  tensors: readonly HeldTensor[],
  { writers, leader }: ShareOutOptions,
): ReadonlyMap<number, readonly Piece[]> {
  const found = new Map(writers.map((rank) => [rank, { pieces: [] as Piece[], bytes: 0 }]));
  const leaders = found.get(leader) as Load;
  const give = (to: Load, piece: Piece) => {
    to.pieces.push(piece);
    to.bytes += piece.to - piece.from;
  };
  const replicated: Piece[] = [];
  for (const { name, parts } of tensors) {
    for (const { from, to, owner } of parts) {
      if (owner === undefined) replicated.push({ name, from, to });
      else give(found.get(owner) ?? leaders, { name, from, to });
    }
  }
  const sized = replicated.toSorted((a, b) => b.to - b.from - (a.to - a.from));
  for (const piece of sized) {
    const loads = [...found.values()];
    give(
      loads.reduce((least, load) => (load.bytes < least.bytes ? load : least)),
      piece,
    );
  }
  return new Map([...found].map(([rank, { pieces }]) => [rank, pieces]));
}

interface Load {
  readonly pieces: Piece[];
  bytes: number;
}

/** A piece with the bytes [start, end) of the shard's file in which it lies. */
export interface PlacedPiece extends Piece {
  readonly start: number;
  readonly end: number;
}

export interface ShardLayout {
  /** The bytes of the file before the first piece. */
  readonly header: Uint8Array;
  /** In the order of the file, without a gap. */
  readonly pieces: readonly PlacedPiece[];
  readonly byteLength: number;
}

/**
 * Lays pieces out as a safetensors file. A whole tensor has its own name and shape there. A part is
 * a tensor of one dim under the name `NAME[FROM:TO]`, in elements of the flat tensor.
 */
export function layOutShard(
  pieces: readonly Piece[],
  types: ReadonlyMap<string, TensorType>,
): ShardLayout {
  const named = new Map<string, TensorType & { readonly piece: Piece }>();
  for (const piece of pieces) {
    const type = types.get(piece.name) as TensorType;
    const width = bytesPerElement(type.dtype);
    const [first, last] = [piece.from / width, piece.to / width];
    const isWhole = piece.from === 0 && piece.to === byteLength(type);
    const name = isWhole ? piece.name : `${piece.name}[${first}:${last}]`;
    const shape = isWhole ? type.shape : [last - first];
    named.set(name, { dtype: type.dtype, shape, piece });
  }
  const { bytes: header, order } = encodeHeader(named, { format: "pt" });
  let end = header.byteLength;
  const placed = order.map(([, { piece }]): PlacedPiece => {
    const start = end;
    end += piece.to - piece.from;
    return { ...piece, start, end };
  });
  return { header, pieces: placed, byteLength: end };
}
