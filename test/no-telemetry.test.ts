/**
 * ONNX Runtime from npm records its use in the user's cache, for upload to its maker. Ours must
 * not.
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const engine = fileURLToPath(new URL("../src/engine/index.js", import.meta.url));

test("an engine leaves nothing in the user's home", () => {
  const home = mkdtempSync(join(tmpdir(), "lockstep-home-"));
  try {
    const { ORT_DISABLE_TELEMETRY: _, XDG_CACHE_HOME: __, ...env } = process.env;
    const program = `import { createOrtEngine } from ${JSON.stringify(engine)};
      const engine = createOrtEngine({ threads: 1 });
      await engine.close();`;
    execFileSync(process.execPath, ["--input-type=module", "-e", program], {
      env: { ...env, HOME: home },
    });
    assert.deepEqual(readdirSync(home, { recursive: true }), []);
  } finally {
    rmSync(home, { recursive: true });
  }
});
