import assert from "node:assert/strict";
import { test } from "node:test";
import { type Manifest, manifestText, readManifest } from "./manifest.ts";

const stretch = { first: 0, next: 3, start: 0, end: 24, generation: 1, samples: [4, 4] };
const manifest: Manifest = {
  lockstep: "1",
  step: 3,
  position: 24,
  seed: 1,
  seconds: 0.5,
  trainLoss: 1,
  diverged: false,
  ledger: { begins: { step: 0, position: 0 }, stretches: [stretch], earlier: 0, repeated: 0 },
  identity: { batch: "8" },
  identitySha256: "0".repeat(64),
  shards: [{ file: "a.safetensors", byteLength: 100, sha256: "1".repeat(64) }],
  tensors: {
    "parameters/w": {
      dtype: "float32",
      shape: [2],
      parts: [{ shard: 0, start: 92, end: 100, from: 0 }],
    },
  },
};

function readText(text: string | undefined): Promise<Manifest> {
  const bytes = Buffer.from(text ?? "");
  return readManifest({
    checkpoint: "run/step-3",
    path: "run/step-3/manifest.json",
    step: 3,
    byteLength: text === undefined ? undefined : bytes.byteLength,
    read: async () => bytes,
  });
}

test("a manifest is read as it was written", async () => {
  assert.deepEqual(await readText(manifestText(manifest)), manifest);
});

const { ledger } = manifest;
/** Each of these has the right hash: someone has written it with care. */
const wrong: readonly [string, Partial<Manifest>, RegExp][] = [
  ["of another step", { step: 4, ledger: undefined }, /it is of step 4, but lies where step 3/],
  [
    "whose ledger ends elsewhere",
    { ledger: { ...ledger, stretches: [{ ...stretch, next: 2, end: 16 }] } as Manifest["ledger"] },
    /its ledger ends with step 2, and not with 3/,
  ],
  [
    "whose ledger has a gap",
    { ledger: { ...ledger, stretches: [{ ...stretch, first: 1 }] } as Manifest["ledger"] },
    /ledger: has a gap/,
  ],
  [
    "whose shard lies in another folder",
    { shards: [{ file: "../a.safetensors", byteLength: 100, sha256: "1".repeat(64) }] },
    /shards\.0\.file/,
  ],
  [
    "whose tensor lies outside of its shard",
    { shards: [{ file: "a.safetensors", byteLength: 99, sha256: "1".repeat(64) }] },
    /the tensor "parameters\/w" lies outside of its shard/,
  ],
];
for (const [what, change, message] of wrong) {
  test(`a manifest ${what} is damaged`, async () => {
    const text = manifestText({ ...manifest, ...change });
    await assert.rejects(readText(text), { code: "CHECKPOINT", message });
  });
}

test("a manifest that is not there, too large, edited, or of another version is told apart", async () => {
  const text = manifestText(manifest);
  const faults: readonly [string | undefined, RegExp][] = [
    [undefined, /"run\/step-3" is damaged: it has no manifest\.json/],
    [text.replace('"seed": 1', '"seed": 2'), /it is not as it was written/],
    [text.slice(0, -9), /it is not a manifest/],
    [text.replace("lockstep-checkpoint-3", "lockstep-checkpoint-9"), /has the format .*-9, which/],
  ];
  for (const [changed, message] of faults) {
    await assert.rejects(readText(changed), { code: "CHECKPOINT", message });
  }
  const large = { checkpoint: "c", path: "p", step: 3, byteLength: 2 ** 29 };
  const read = () => assert.fail("nothing of it is read");
  await assert.rejects(readManifest({ ...large, read }), /536870912 bytes, which is too many/);
});
