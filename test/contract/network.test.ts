/** Two network namespaces with a slow and lossy link between them: the sums are still right. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { runRanks } from "./ranks.ts";

const LINK = `ls${process.pid % 100_000}`;
const spaces = [`${LINK}a`, `${LINK}b`] as const;

function run(command: string): string | undefined {
  const [program = "", ...words] = command.split(" ");
  const { status, stderr, error } = spawnSync(program, words, { encoding: "utf8" });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

/** Why there can be no such link, or undefined once there is. */
function makeLink(): string | undefined {
  const commands = [
    ...spaces.map((space) => `ip netns add ${space}`),
    `ip link add ${LINK}0 netns ${spaces[0]} type veth peer name ${LINK}1 netns ${spaces[1]}`,
    ...spaces.flatMap((space, end) => [
      `ip -n ${space} address add 10.77.0.${end + 1}/24 dev ${LINK}${end}`,
      `ip -n ${space} link set ${LINK}${end} up`,
    ]),
  ];
  for (const command of commands) {
    const problem = run(command);
    if (problem !== undefined) return `${command}: ${problem}`;
  }
  return undefined;
}

/** Delay and loss; returns why there are none. */
function disturbLink(): string | undefined {
  const netem = "netem delay 3ms 1ms loss 2%";
  const problems = spaces.map((space, end) =>
    run(`ip netns exec ${space} tc qdisc add dev ${LINK}${end} root ${netem}`),
  );
  return problems.find((problem) => problem !== undefined);
}

test("every collective between two networks, over a link with delay and loss where the system has them", async (t) => {
  try {
    const problem = process.platform === "linux" ? makeLink() : "needs Linux";
    if (problem !== undefined) return t.skip(`no network namespaces here (${problem})`);
    const undisturbed = disturbLink();
    if (undisturbed !== undefined) t.diagnostic(`a link without delay and loss (${undisturbed})`);
    const results = await runRanks({
      transport: "tcp",
      size: 2,
      task: "contract",
      counts: [17, 70_001],
      addresses: ["10.77.0.1:29950", "10.77.0.2:29950"],
      prefix: (rank) => ["ip", "netns", "exec", spaces[rank] ?? ""],
      deadlineMs: 20_000,
    });
    assert.deepEqual(
      results.map((result) => result?.text ?? result?.ok),
      [true, true],
    );
  } finally {
    for (const space of spaces) run(`ip netns delete ${space}`);
  }
});
