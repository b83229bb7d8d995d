export { type Read, readsFor, type StoredPart, type StoredTensor } from "./assemble.ts";
export { type Difference, differences } from "./compare.ts";
export {
  beginDraft,
  discardDraft,
  listSteps,
  publish,
  readManifest,
  removeDrafts,
  removeStep,
  setAside,
  stepFolder,
} from "./folder.ts";
export { type Entry, Ledger, type LedgerRecord, ledgerSchema } from "./ledger.ts";
export { MANIFEST, type Manifest, manifestSha256, type Shard } from "./manifest.ts";
export {
  damaged,
  describeFault,
  FAULTS,
  type Fault,
  readTensor,
  type Source,
  sourceOf,
  TensorReader,
} from "./read.ts";
export { outdated, type Retention } from "./retain.ts";
export {
  type HeldPart,
  type HeldTensor,
  layOutShard,
  type Piece,
  type PlacedPiece,
  type ShardLayout,
  shareOut,
} from "./share-out.ts";
export { gatherShards, type Pieces, writeShard } from "./write.ts";
