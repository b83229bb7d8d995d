/** A folder for one test, removed afterwards. */
import { statfsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** File systems that keep their files in memory (tmpfs, ramfs). */
const IN_MEMORY: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

/** A folder for files of tests that is not in memory. */
export function onDisk(): string {
  return IN_MEMORY.has(statfsSync(tmpdir()).type) ? "/var/tmp" : tmpdir();
}

/** Runs `body` in a new folder that holds `files`, given by relative path. */
export async function withFolder<Result>(
  files: Readonly<Record<string, string | Uint8Array>>,
  body: (folder: string) => Promise<Result>,
): Promise<Result> {
  const folder = await mkdtemp(join(onDisk(), "lockstep-test-"));
  try {
    for (const [name, content] of Object.entries(files)) {
      await mkdir(dirname(join(folder, name)), { recursive: true });
      await writeFile(join(folder, name), content);
    }
    return await body(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
