/** Jobs made of run files, as the command makes them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, parse, resolve } from "node:path";
import { after } from "node:test";
import { type JobFiles, makeJob, writeJob } from "../../src/job/index.ts";
import { loadRun, overrideRun, type RunOverrides } from "../../src/run/index.ts";

export interface FileJob {
  readonly file: string;
  readonly overrides?: RunOverrides;
  /** The folder that its data lies below. Default: any place of this machine. */
  readonly root?: string;
}

/** Executes the run file once. */
export async function jobOfFile({ file, overrides = {}, root }: FileJob): Promise<JobFiles> {
  const run = overrideRun(await loadRun(file), overrides);
  const baseDir = dirname(resolve(file));
  const { signal } = new AbortController();
  const { files } = await makeJob(run, {
    baseDir,
    root: root ?? parse(baseDir).root,
    mayLackData: root !== undefined,
    signal,
  });
  return files;
}

/** Does the same in a folder, which is removed when the tests of the process have ended. */
export async function jobFolderOf(job: FileJob): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "lockstep-test-job-"));
  after(() => rmSync(folder, { recursive: true, force: true }));
  await writeJob(folder, await jobOfFile(job));
  return folder;
}
