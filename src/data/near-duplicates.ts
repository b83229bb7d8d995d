/**
 * Groups documents that belong together, so that none is trained on while its twin is held out:
 * files of one name (`core.d.ts`, `core.d.cts`), and files that share at least half of their lines.
 * Packages are full of both.
 *
 * Containment is estimated from samples of the lines' hashes, taken by modulo so that documents of
 * any two sizes can be compared (Broder, "On the resemblance and containment of documents", 1997).
 * Documents that are not in memory, or too many, are grouped by name only.
 */
import type { Document } from "./document.ts";

/** Up to this size of text, all lines are sampled; for twice as much text, every second line is. */
const FULL_SAMPLE_BYTES = 2 ** 24;
/**
 * A line that more documents than this have (a licence, an import) is not evidence of a duplicate.
 */
const MAX_SHARING = 16;
const MAX_DOCUMENTS = 50_000;
/** Shorter lines (a brace, `export {};`) are no evidence either. */
const MIN_LINE_BYTES = 12;
/** A document with fewer sampled lines is grouped by name only. */
const MIN_LINES = 4;

/** Groups of documents, each in the given order. */
export function groupNearDuplicates(documents: readonly Document[]): Document[][] {
  const groups = new DisjointSets(documents.length);
  const firstOfStem = new Map<string, number>();
  for (const [index, { name }] of documents.entries()) {
    const stem = stemOf(name);
    const first = firstOfStem.get(stem);
    if (first === undefined) firstOfStem.set(stem, index);
    else groups.join(first, index);
  }
  if (documents.length <= MAX_DOCUMENTS) joinResembling(documents, groups);
  const byRoot = new Map<number, Document[]>();
  for (const [index, document] of documents.entries()) {
    const root = groups.find(index);
    const group = byRoot.get(root);
    if (group === undefined) byRoot.set(root, [document]);
    else group.push(document);
  }
  return [...byRoot.values()];
}

/**
 * The path without its extension, which in `core.d.cts` is `.d.cts`. Records of a file are not
 * grouped with others.
 */
function stemOf(name: string): string {
  return name.includes("#") ? name : name.replace(/(?<=[^/])(\.d)?\.[^./]+$/, "");
}

function joinResembling(documents: readonly Document[], groups: DisjointSets): void {
  const total = documents.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const modulo = Math.ceil(total / FULL_SAMPLE_BYTES);
  const sketches = documents.map(({ content }) =>
    content === undefined ? [] : sketchOf(content, modulo),
  );
  const holders = new Map<number, number[]>();
  for (const [index, sketch] of sketches.entries()) {
    for (const hash of sketch) {
      const list = holders.get(hash);
      if (list === undefined) holders.set(hash, [index]);
      else list.push(index);
    }
  }
  const telling = sketches.map((sketch) =>
    sketch.filter((hash) => (holders.get(hash)?.length ?? 0) <= MAX_SHARING),
  );
  for (const [index, sketch] of telling.entries()) {
    const shared = new Map<number, number>();
    for (const hash of sketch) {
      for (const other of holders.get(hash) ?? []) {
        if (other < index) shared.set(other, (shared.get(other) ?? 0) + 1);
      }
    }
    for (const [other, count] of shared) {
      const smaller = Math.min(sketch.length, telling[other]?.length ?? 0);
      if (smaller >= MIN_LINES && count * 2 >= smaller) groups.join(other, index);
    }
  }
}

/** The distinct hashes of the document's lines that `modulo` divides. */
function sketchOf(content: Uint8Array, modulo: number): number[] {
  const hashes = new Set<number>();
  let start = 0;
  while (start < content.length) {
    let end = content.indexOf(10, start);
    if (end === -1) end = content.length;
    const hash = hashLine(content, start, end);
    if (hash !== undefined && hash % modulo === 0) hashes.add(hash);
    start = end + 1;
  }
  return [...hashes];
}

/**
 * FNV-1a over the bytes that are not blanks, mixed once more so that the order of the hashes is
 * random.
 */
function hashLine(content: Uint8Array, start: number, end: number): number | undefined {
  let hash = 0x811c9dc5;
  let count = 0;
  for (let i = start; i < end; i++) {
    const byte = content[i] as number;
    if (byte <= 32) continue;
    hash = Math.imul(hash ^ byte, 0x01000193);
    count++;
  }
  if (count < MIN_LINE_BYTES) return undefined;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

/**
 * Tarjan's union-find with path halving. The smaller index is the root, so that results do not
 * depend on the order of unions.
 */
class DisjointSets {
  readonly #parent: Int32Array;

  constructor(size: number) {
    this.#parent = Int32Array.from({ length: size }, (_, index) => index);
  }

  find(index: number): number {
    let at = index;
    for (;;) {
      const parent = this.#parent[at] as number;
      if (parent === at) return at;
      const grandparent = this.#parent[parent] as number;
      this.#parent[at] = grandparent;
      at = grandparent;
    }
  }

  join(a: number, b: number): void {
    const [first, second] = [this.find(a), this.find(b)].sort((x, y) => x - y) as [number, number];
    this.#parent[second] = first;
  }
}
