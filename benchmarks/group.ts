/** Workers of one group, each a process that measures its steps. */
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { ScalingMeasurement, ScalingRequest } from "./scaling-child.ts";

const entry = join(dirname(fileURLToPath(import.meta.url)), "scaling-child.js");

/** @param prefixOf the words before the command of a rank. Default: none. */
export function measureGroup(
  request: Omit<ScalingRequest, "group">,
  size: number,
  prefixOf: (rank: number) => readonly string[] = () => [],
): Promise<ScalingMeasurement[]> {
  const name = `lockstep-bench-${process.pid}-${Date.now()}`;
  const ranks = Array.from({ length: size }, (_, rank) => rank);
  return Promise.all(
    ranks.map(async (rank) => {
      const group = { name, rank, size };
      const text = JSON.stringify({ ...request, group } satisfies ScalingRequest);
      const [program, ...words] = [...prefixOf(rank), process.execPath, entry, text];
      const { stdout } = await promisify(execFile)(program, words);
      return JSON.parse(stdout) as ScalingMeasurement;
    }),
  );
}
