import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { allocateMemory } from "../memory/index.ts";
import { NodeSha256, newSha256, type Sha256 } from "./sha256.ts";

const MADE: readonly (readonly [string, () => Sha256])[] = [
  ["OpenSSL on threads", newSha256],
  ["node:crypto", () => new NodeSha256()],
];

/** Sizes of pieces around those at which the way of hashing changes. */
const SIZES = [[], [0], [1], [3, 2 ** 15, 5], [2 ** 15 + 1, 63], [2 ** 20, 2 ** 20 + 1, 7]];

for (const [name, make] of MADE) {
  describe(`SHA-256 by ${name}`, () => {
    test("is that of all pieces together", async () => {
      for (const sizes of SIZES) {
        // Neither piece begins where an allocation does.
        const pieces = sizes.map((size) => randomBytes(size + 3).subarray(3));
        const hash = make();
        for (const piece of pieces) await hash.add(piece);
        const wanted = createHash("sha256").update(Buffer.concat(pieces)).digest("hex");
        assert.equal(hash.digest(), wanted, sizes.join());
      }
    });

    test("reads memory outside the JavaScript heap, several hashes at a time", async () => {
      const memory = allocateMemory(3_000_001);
      memory.bytes.set(randomBytes(memory.byteLength));
      const found = await Promise.all(
        [0, 1, 2].map(async (from) => {
          const hash = make();
          await hash.add(memory.bytes.subarray(from));
          return hash.digest();
        }),
      );
      const wanted = [0, 1, 2].map((from) =>
        createHash("sha256").update(memory.bytes.subarray(from)).digest("hex"),
      );
      assert.deepEqual(found, wanted);
      memory.close();
    });
  });
}

test("other work goes on while bytes are hashed", async () => {
  const bytes = randomBytes(8 * 2 ** 20);
  let isDone = false;
  let turns = 0;
  const hash = newSha256();
  const hashing = hash.add(bytes).then(() => {
    isDone = true;
  });
  while (!isDone) {
    turns += 1;
    await new Promise(setImmediate);
  }
  await hashing;
  assert.ok(turns > 8, `${turns} turns`);
});
