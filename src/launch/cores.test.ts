import assert from "node:assert/strict";
import { test } from "node:test";
import { quotaOf } from "./cores.ts";

const V2 = "29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
const V1 = "33 32 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
const IN_CONTAINER = "33 32 0:28 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n";

for (const [name, files, cores] of [
  ["no control groups", {}, Number.POSITIVE_INFINITY],
  [
    "version 2, a quota of the group above",
    {
      "/proc/self/mountinfo": V2,
      "/proc/self/cgroup": "0::/a/b\n",
      "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
      "/sys/fs/cgroup/a/cpu.max": "150000 100000\n",
    },
    1.5,
  ],
  [
    "version 2 in a container: the group is the root of what is mounted",
    {
      "/proc/self/mountinfo": V2,
      "/proc/self/cgroup": "0::/\n",
      "/sys/fs/cgroup/cpu.max": "400000 100000\n",
    },
    4,
  ],
  [
    "version 1 beside an empty version 2",
    {
      "/proc/self/mountinfo": V1 + V2,
      "/proc/self/cgroup": "4:cpu,cpuacct:/job\n3:memory:/other\n0::/\n",
      "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "200000\n",
      "/sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
      "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
      "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    },
    2,
  ],
  [
    "version 1 in a container: the path is told from outside",
    {
      "/proc/self/mountinfo": IN_CONTAINER,
      "/proc/self/cgroup": "4:cpu:/docker/abc\n",
      "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
      "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    },
    0.5,
  ],
] as const) {
  test(`the quota of CPU time: ${name}`, () => {
    const quota = quotaOf((path) => {
      const text = (files as Readonly<Record<string, string>>)[path];
      if (text === undefined) throw new Error("ENOENT");
      return text;
    });
    assert.equal(quota, cores);
  });
}
