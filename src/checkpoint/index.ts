export { type Read, readsFor, type StoredPart, type StoredTensor } from "./assemble.ts";
export { type Difference, differences } from "./compare.ts";
export { FolderStore } from "./folder-store.ts";
export { type Entry, Ledger, type LedgerRecord, ledgerSchema } from "./ledger.ts";
export { damaged, MANIFEST, type Manifest, manifestSha256, type Shard } from "./manifest.ts";
export { isMark, markName, stepName, stepOf } from "./names.ts";
export { isStore, isStoreAddress, openStore } from "./open.ts";
export {
  describeFault,
  FAULTS,
  type Fault,
  filesOf,
  readRangeOf,
  readTensor,
  type ShardFiles,
  type Source,
  sourceOf,
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
export type { CheckpointStore, Hold, Holder, Pieces, ShardBytes } from "./store.ts";
