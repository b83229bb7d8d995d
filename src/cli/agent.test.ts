import assert from "node:assert/strict";
import { test } from "node:test";
import { requireToken } from "./agent.ts";

test("a missing or short token is refused, and not printed", () => {
  assert.throws(() => requireToken(undefined), { code: "UNAUTHORIZED" });
  assert.throws(() => requireToken(""), { code: "UNAUTHORIZED" });
  for (const token of ["a", "fifteen letters"]) {
    assert.throws(
      () => requireToken(token),
      (error: Error & { code?: string }) =>
        error.code === "INVALID_OPTION" &&
        error.message.includes(`${token.length} characters`) &&
        !error.message.includes(`"${token}"`),
    );
  }
  assert.equal(requireToken("sixteen letters!"), "sixteen letters!");
});
