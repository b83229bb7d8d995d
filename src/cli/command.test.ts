import assert from "node:assert/strict";
import { test } from "node:test";
import { commandToResume } from "./command.ts";

const node = "/usr/bin/node";

test("the command that resumes a run is the typed one with --resume", () => {
  const cases: [string[], Record<string, string>, string][] = [
    [["/home/me/p/build/main.js", "train", "a.ts"], {}, "node build/main.js train a.ts --resume"],
    [["/usr/bin/lockstep", "train", "a.ts", "--anew"], {}, "lockstep train a.ts --resume"],
    [["/usr/bin/lockstep", "train", "a.ts", "--resume"], {}, "lockstep train a.ts --resume"],
    [
      ["/home/me/p/node_modules/.bin/lockstep", "train", "a.ts"],
      { npm_command: "exec", npm_lifecycle_event: "npx", npm_lifecycle_script: "lockstep train" },
      "npx lockstep train a.ts --resume",
    ],
    [
      ["/home/me/p/build/main.js", "train", "a.ts", "--steps", "5"],
      {
        npm_command: "start",
        npm_lifecycle_event: "start",
        npm_lifecycle_script: "tsc && node build/main.js train a.ts",
      },
      "npm start -- --steps 5 --resume",
    ],
    [
      ["/home/me/p/build/main.js", "train", "a.ts"],
      {
        npm_command: "run-script",
        npm_lifecycle_event: "long",
        npm_lifecycle_script: "node build/main.js train a.ts",
      },
      "npm run long -- --resume",
    ],
    [
      ["/usr/bin/lockstep", "train", "a.ts", "--token", "my secret", "--hosts", "a"],
      {},
      "LOCKSTEP_TOKEN=… lockstep train a.ts --hosts a --resume",
    ],
    [
      ["/usr/bin/lockstep", "train", "a.ts", "--token=my secret"],
      {},
      "LOCKSTEP_TOKEN=… lockstep train a.ts --resume",
    ],
    // A script that runs another program, which then runs this one.
    [
      ["/home/me/p/build/main.js", "train", "a.ts"],
      { npm_lifecycle_event: "all", npm_lifecycle_script: "sh all.sh" },
      "node build/main.js train a.ts --resume",
    ],
    [
      ["/usr/bin/lockstep", "train", "my run.ts", "--data", "don't/*.md"],
      {},
      "lockstep train 'my run.ts' --data 'don'\\''t/*.md' --resume",
    ],
  ];
  for (const [words, env, expected] of cases) {
    assert.equal(commandToResume([node, ...words], env, "/home/me/p"), expected);
  }
});
