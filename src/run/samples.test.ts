import assert from "node:assert/strict";
import { after, test } from "node:test";
import { simulatedRanks } from "../../test/support/ranks.ts";
import { plainRun } from "../../test/support/runs.ts";
import { Ledger } from "../checkpoint/index.ts";
import { positionsOfStep } from "../data/index.ts";
import { createOrtEngine } from "../engine/index.ts";
import { createTrainer } from "../train/index.ts";
import { beginEntry, enterCommitted, hasStoodBy, shareLedger } from "./samples.ts";
import { sendText } from "./tell.ts";

const engine = createOrtEngine({ threads: 1 });
after(() => engine.close());

const { batch } = plainRun;

/** A ledger of this many steps of one worker. */
function ledgerAfter(steps: number): Ledger {
  const ledger = new Ledger();
  for (let step = 0; step < steps; step++) {
    const positions = positionsOfStep(step, batch);
    ledger.commit({ step, positions, generation: 0, parts: [[positions]] });
  }
  return ledger;
}

test("a worker that reads other positions than those of its step is stopped before it is made", async () => {
  const trainer = await createTrainer({
    engine,
    model: plainRun.model.build({ batch, mode: "train" }),
    optimizer: plainRun.optimizer,
  });
  const samples = { ledger: ledgerAfter(0), shares: undefined, entry: undefined };
  const session = { run: plainRun, ranks: undefined, trainer, samples };
  try {
    const own = trainer.ownPositions(positionsOfStep(0, batch));
    await beginEntry(session, 0, own);
    enterCommitted(session);
    assert.equal(samples.ledger.steps, 0, "a step that was begun is not committed");
    const wrong = [
      [trainer.ownPositions(positionsOfStep(1, batch)), /would leave out positions 0 to 7/],
      [[{ start: 0, end: 4 }], /owns positions 0 to 8, and its workers have 0 to 4/],
      [
        [
          { start: 0, end: 5 },
          { start: 4, end: 8 },
        ],
        /would commit position 4 again/,
      ],
    ] as const;
    for (const [positions, message] of wrong) {
      await assert.rejects(beginEntry(session, 0, positions), message);
    }
    trainer.resumeAt(1);
    enterCommitted(session);
    assert.equal(samples.ledger.samplesCommitted, batch);
    await assert.rejects(beginEntry(session, 0, own), /step 0 follows 1 entered steps/);
    assert.equal(hasStoodBy(session), false);
    trainer.resumeAt(3);
    assert.equal(hasStoodBy(session), true, "others have committed two steps without it");
    assert.throws(() => enterCommitted(session), /the ledger has each committed step/);
  } finally {
    trainer.close();
  }
});

test("newcomers get the ledger of the first worker, and one with other samples does not agree", async () => {
  const met = simulatedRanks(engine, 3, false);
  try {
    const own = [ledgerAfter(5), undefined, ledgerAfter(5)];
    const shared = await Promise.all(
      met.groups.map((group, rank) => shareLedger(group, 5, own[rank])),
    );
    for (const ledger of shared) assert.deepEqual(ledger.record, ledgerAfter(5).record);
    const [first, , third] = await Promise.allSettled(
      met.groups.map((group, rank) => shareLedger(group, 5, ledgerAfter(rank === 2 ? 4 : 5))),
    );
    assert.equal(first?.status, "fulfilled");
    assert.ok(third?.status === "rejected");
    assert.match(String(third.reason), /have committed different samples/);
  } finally {
    await met.close();
  }
});

test("a ledger that is not JSON is refused like one with a gap", async () => {
  const met = simulatedRanks(engine, 2, false);
  const [first, second] = met.groups;
  assert.ok(first !== undefined);
  try {
    const { begins, stretches, ...rest } = ledgerAfter(5).record;
    const gap = JSON.stringify({ ...rest, begins: { ...begins, step: 1 }, stretches });
    for (const text of ["{ no ledger", gap]) {
      const heard = shareLedger(second, 5);
      await sendText(first.transport, 1, text);
      await assert.rejects(heard, { code: "PROTOCOL", message: /cannot be understood/ });
    }
  } finally {
    await met.close();
  }
});
