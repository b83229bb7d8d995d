/** The same training by real processes of this machine, which share memory. */
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { ranksOf } from "../test/support/shared-runs.ts";
import type { Way } from "./same-ways.ts";

export interface RankRequest {
  /** The name of the model. */
  readonly model: string;
  readonly way: Way;
  readonly steps: number;
  readonly group: { readonly name: string; readonly rank: number; readonly size: number };
}

export interface RankResult {
  readonly losses: readonly number[];
  /** A hash of each parameter, slot and state at the end; only rank 0 has them. */
  readonly bits: Readonly<Record<string, string>>;
}

const entry = join(dirname(fileURLToPath(import.meta.url)), "same-rank.js");
const PATIENCE_MS = 240_000;
let groups = 0;

/** @returns what each rank has, in their order */
export async function trainedByProcesses(
  request: Omit<RankRequest, "group">,
): Promise<RankResult[]> {
  const size = ranksOf(request.way);
  const name = `lockstep-same-${process.pid}-${groups++}`;
  const ranks = Array.from({ length: size }, async (_, rank) => {
    const words = [entry, JSON.stringify({ ...request, group: { name, rank, size } })];
    const { stdout } = await promisify(execFile)(process.execPath, words, {
      timeout: PATIENCE_MS,
      maxBuffer: 2 ** 24,
    });
    return JSON.parse(stdout) as RankResult;
  });
  return Promise.all(ranks);
}
