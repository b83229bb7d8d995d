import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { RunEvent } from "./events.ts";
import { printable, printableEvent, printableJson, printableLine } from "./printable.ts";

const ATTACK = "\u001b]0;title\u0007\u001b[2J\u009b31m\u202egnp.exe\r\u2028\u0000";
const UNPRINTABLE = /[^\P{C}\n\p{Co}\p{Cn}\p{Cs}]|[\u2028\u2029]/u;

test("no control or format character of a text is printed", () => {
  for (const text of [printable(ATTACK), printableLine(`${ATTACK}\n`)]) {
    assert.doesNotMatch(text, UNPRINTABLE);
    assert.match(text, /title/);
  }
  assert.doesNotMatch(printableLine("a\nlockstep: all is well"), /\n/);
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => !UNPRINTABLE.test(printable(text))),
  );
});

test("JSON that is made printable keeps its value", () => {
  fc.assert(
    fc.property(fc.json({ stringUnit: "binary" }), (json) => {
      const text = printableJson(JSON.stringify(JSON.parse(json), null, 2));
      assert.doesNotMatch(text, UNPRINTABLE);
      assert.deepEqual(JSON.parse(text), JSON.parse(json));
    }),
  );
});

test("every text of an event is made printable, including names of measures", () => {
  const event = {
    type: "evaluated",
    step: 3,
    loss: 1,
    measures: { [`acc${ATTACK}`]: 0.5 },
  } as RunEvent;
  assert.doesNotMatch(JSON.stringify(printableEvent(event)), /u001b|\u202e/);
  assert.equal((printableEvent(event) as { loss: number }).loss, 1);
});
