/** What a checkpoint says about itself before its tensors are read. */
import { createHash } from "node:crypto";
import type { LedgerRecord, Source } from "../checkpoint/index.ts";
import { hashBytes } from "../safetensors/index.ts";
import { formatType, type Tensor } from "../tensor/index.ts";
import type { Identity } from "./identity.ts";

/** How far a run has come. */
export interface Progress {
  /** The number of committed steps. */
  readonly step: number;
  /** Seconds of training so far. */
  readonly seconds: number;
  /** The loss of the last step. */
  readonly trainLoss: number;
}

/** A checkpoint that can be opened; its shards may still be damaged. */
export interface CheckpointHead extends Progress {
  /** Its folder; of an earlier version, its file. */
  readonly path: string;
  readonly identity: Identity;
  /** The samples in it; undefined for checkpoints of earlier versions. */
  readonly ledger?: LedgerRecord | undefined;
  /** Whether the step after the checkpoint had a loss that is not finite. */
  readonly diverged: boolean;
  /** Whether it is too old to show that it is whole and belongs to this run. */
  readonly isOld: boolean;
  /** The hash of all that it holds. */
  readonly state: string;
  readonly source: Source;
}

/** Hashes the type and the bytes. */
export function hashOf(tensor: Tensor): string {
  const hash = createHash("sha256").update(formatType(tensor));
  hashBytes(hash, tensor);
  return hash.digest("hex");
}
