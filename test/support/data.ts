/**
 * Real data for tests and examples, found by `LOCKSTEP_DATA` (default: `shared/data` beside the
 * repository). If it is missing, small stand-ins with the same fields, which are learnable and the
 * same on every machine.
 */
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { arrays, type DataSource, idxImages, ratings, text } from "../../src/data/index.ts";
import { tensorFrom } from "../../src/tensor/index.ts";
import { randomSource } from "./random.ts";

/** The full path of a file of the data folder, or undefined if it is not there. */
export function dataPath(name: string): string | undefined {
  const folder = process.env["LOCKSTEP_DATA"] ?? join(repositoryRoot(), "../shared/data");
  const path = resolve(folder, name);
  return existsSync(path) ? path : undefined;
}

/**
 * Returns the folder of package.json, because compiled files are nested differently from their
 * sources.
 */
function repositoryRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    const parent = dirname(folder);
    if (parent === folder) return process.cwd();
    folder = parent;
  }
  return folder;
}

export interface TestData {
  readonly source: DataSource;
  /** False for a stand-in, for which targets met on real data may not hold. */
  readonly real: boolean;
}

/** Fields `ids`, `targets` [batch, context]. */
export function shakespeare(): TestData {
  const path = dataPath("tinyshakespeare.txt");
  if (path !== undefined) return { source: text(path), real: true };
  return { source: text(join(repositoryRoot(), "node_modules/*/README.md")), real: false };
}

/** Fields `image` [28, 28] (0 to 1 as floats) and `label` (0 to 9). */
export function digits(): TestData {
  const images = dataPath("mnist/t10k-images-idx3-ubyte.gz");
  const labels = dataPath("mnist/t10k-labels-idx1-ubyte.gz");
  if (images !== undefined && labels !== undefined) {
    return { source: idxImages({ images, labels }), real: true };
  }
  return { source: syntheticDigits(2000), real: false };
}

/** Fields `user` (below 944), `item` (below 1,683), `rating` (1 to 5) and `time`. */
export function movieRatings(): TestData {
  const path = dataPath("ml-100k/u.data");
  if (path !== undefined) return { source: ratings(path), real: true };
  return { source: syntheticRatings(20_000), real: false };
}

/** Ten blurry shapes, moved by a pixel or two, with noise. */
export function syntheticDigits(count: number): DataSource {
  const random = randomSource(7);
  const shapes = Array.from({ length: 10 }, () => {
    const spots = Array.from({ length: 6 }, () => [4 + 20 * random(), 4 + 20 * random()] as const);
    return (x: number, y: number) =>
      Math.min(
        1,
        spots.reduce((sum, [u, v]) => sum + Math.exp(-((x - u) ** 2 + (y - v) ** 2) / 8), 0),
      );
  });
  const pixels = new Float32Array(count * 784);
  const labels = Array.from({ length: count }, () => Math.floor(random() * 10));
  for (const [sample, label] of labels.entries()) {
    const [dx, dy] = [4 * random() - 2, 4 * random() - 2];
    for (let i = 0; i < 784; i++) {
      const value = shapes[label]?.((i % 28) + dx, Math.floor(i / 28) + dy) ?? 0;
      pixels[sample * 784 + i] = Math.min(1, Math.max(0, value + 0.2 * (random() - 0.5)));
    }
  }
  return arrays({
    image: tensorFrom("float32", [count, 28, 28], pixels),
    label: tensorFrom("uint8", [count], labels),
  });
}

/** Ratings that a factorization of rank 2 explains except for rounding. */
export function syntheticRatings(count: number): DataSource {
  const random = randomSource(9);
  const tastes = (size: number) =>
    Array.from({ length: size }, () => [2 * random() - 1, 2 * random() - 1] as const);
  const [users, items] = [tastes(944), tastes(1683)];
  const user = Array.from({ length: count }, () => Math.floor(random() * users.length));
  const item = Array.from({ length: count }, () => Math.floor(random() * items.length));
  const rating = user.map((u, i) => {
    const [a, b] = [users[u] ?? [0, 0], items[item[i] ?? 0] ?? [0, 0]];
    return Math.min(5, Math.max(1, Math.round(3 + 2 * (a[0] * b[0] + a[1] * b[1]))));
  });
  return arrays({
    user: tensorFrom("int32", [count], user),
    item: tensorFrom("int32", [count], item),
    rating: tensorFrom("float32", [count], rating),
    time: tensorFrom(
      "int32",
      [count],
      user.map((_, i) => i),
    ),
  });
}
