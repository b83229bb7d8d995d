/** A file that says how fast workers and the links between them are (`lockstep plan --links`). */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { LockstepError } from "../errors.ts";

const speed = z.number().positive();
const link = z.strictObject({
  /** In GB/s, of a worker while all use theirs. */
  bandwidth: speed,
  /** In microseconds, of one exchange. */
  latency: z.number().min(0),
});
const schema = z.strictObject({
  /** Billion operations per second of one worker. */
  gflops: speed.optional(),
  /** Of memory, in GB/s that one worker reads and writes. */
  memory: speed.optional(),
  /** Between workers of a machine, for what they exchange within a pass. */
  within: link.optional(),
  /** Between workers of two machines. */
  between: link.optional(),
});

export type Links = z.infer<typeof schema>;

/** @throws INVALID_OPTION for a file that is missing, or says something else */
export function readLinks(path: string): Links {
  const refuse = (what: string): never => {
    throw new LockstepError("INVALID_OPTION", `--links ${path}: ${what}.`, {
      hint: 'It is JSON, as in { "gflops": 80, "memory": 10, "within": { "bandwidth": 8, "latency": 800 }, "between": { "bandwidth": 1, "latency": 100 } }: GB/s and microseconds.',
    });
  };
  const checked = schema.safeParse(parsed(path, refuse));
  if (checked.success) return checked.data;
  const faults = checked.error.issues.map(
    (issue) => `${issue.path.join(".") || "the file"}: ${issue.message}`,
  );
  return refuse(faults.join("; "));
}

function parsed(path: string, refuse: (what: string) => never): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return refuse("it cannot be read");
  }
  try {
    return JSON.parse(text);
  } catch {
    return refuse("it is not JSON");
  }
}
