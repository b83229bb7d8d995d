import assert from "node:assert/strict";
import { test } from "node:test";
import { LockstepError } from "../errors.ts";
import { type WorkersRequest, workersFor } from "./workers.ts";

const plain = { asked: undefined, threads: undefined, cores: 8, microBatches: 8, hosts: undefined };

test("the default is one worker, `cores` means one per core, and there are never more than micro-batches", () => {
  const cases: readonly [Partial<WorkersRequest>, number, number][] = [
    [{}, 1, 1],
    [{ asked: 3 }, 3, 3],
    [{ asked: 2, hosts: 3 }, 2, 6],
    [{ hosts: 2 }, 1, 2],
    [{ asked: "cores" }, 8, 8],
    [{ asked: "cores", microBatches: 4 }, 4, 4],
    [{ asked: "cores", cores: 1 }, 1, 1],
    [{ asked: "cores", microBatches: 1 }, 1, 1],
    [{ asked: "cores", threads: 2 }, 4, 4],
    [{ asked: "cores", threads: 3 }, 2, 2],
    [{ asked: "cores", threads: 16 }, 1, 1],
  ];
  for (const [request, each, all] of cases) {
    assert.deepEqual(workersFor({ ...plain, ...request }), { each, all }, JSON.stringify(request));
  }
});

test("more workers than micro-batches, and `cores` with --hosts, are refused", () => {
  const refused = (request: Partial<WorkersRequest>, expected: RegExp) =>
    assert.throws(
      () => workersFor({ ...plain, ...request }),
      (error) =>
        error instanceof LockstepError &&
        error.code === "INVALID_OPTION" &&
        expected.test(error.message),
    );
  refused({ asked: 9 }, /8 micro-batches cannot be shared by 9 workers/);
  refused({ asked: 5, hosts: 2 }, /shared by 10 workers/);
  refused({ asked: "cores", hosts: 2 }, /cores of --hosts/);
});
