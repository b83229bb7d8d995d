/** A launcher's agents, which a test plays at the other end of a connection. */
import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { type TestContext, test } from "node:test";
import { dialLine, type Line, listenTcp, serveLines } from "../net/index.ts";
import { type AgentJob, type AgentReply, envelope } from "../protocol/index.ts";
import { atMost } from "./at-most.ts";
import type { CrewEvents } from "./crew.ts";
import { HostsCrew, type HostsCrewOptions } from "./hosts-crew.ts";

const DEADLINE_MS = 10_000;
const secrets = { token: "a token of tests", tls: false };
const message: AgentJob = {
  kind: "job",
  name: "gpt",
  files: [],
  out: "out",
  beginning: "anew",
  overrides: {},
  group: "g",
  own: 1,
};

async function open(t: TestContext, options: Partial<HostsCrewOptions>): Promise<HostsCrew> {
  const crew = await HostsCrew.open({
    hosts: [],
    secrets,
    listen: undefined,
    offer: { message, files: new Map() },
    left: undefined,
    deadlineMs: DEADLINE_MS,
    signal: new AbortController().signal,
    onListening: undefined,
    ...options,
  });
  t.after(() => crew.close());
  return crew;
}

function events(own: Partial<CrewEvents>): CrewEvents {
  const nothing = () => undefined;
  return {
    signs: nothing,
    closed: nothing,
    opened: nothing,
    notice: nothing,
    failed: nothing,
    nodeOf: nothing,
    hasBegun: () => true,
    ...own,
  };
}

interface FakeAgent {
  readonly address: string;
  /** The kinds of all that it was sent. */
  readonly heard: string[];
  /** Resolves when its first connection has ended. */
  readonly left: Promise<void>;
}

type Tell = (reply: AgentReply) => void;

/** An agent that answers by `hear`, which is told the number of the connection, from 0. */
async function fakeAgent(
  t: TestContext,
  hear: (kind: string, tell: Tell, line: Line, connection: number) => void,
): Promise<FakeAgent> {
  const listener = await listenTcp({ host: "127.0.0.1", port: 0, ...secrets });
  t.after(() => listener.close());
  const heard: string[] = [];
  let connections = 0;
  let leave: () => void = () => undefined;
  const left = new Promise<void>((resolve) => {
    leave = resolve;
  });
  serveLines(listener, (line) => {
    const connection = connections++;
    t.after(() => line.close());
    line.handler = {
      message: (value) => {
        const { kind } = value as { readonly kind: string };
        heard.push(kind);
        hear(kind, (reply) => line.send(envelope(reply)), line, connection);
      },
      closed: leave,
    };
  });
  return { address: listener.address, heard, left };
}

async function inTime(what: Promise<unknown>, text: string): Promise<void> {
  assert.equal(await atMost(DEADLINE_MS, what), undefined, text);
}

test("machines that have not joined yet are let go when the run ends", async (t) => {
  const crew = await open(t, { listen: "127.0.0.1:0" });
  const address = crew.listensAt as string;
  const { signal } = new AbortController();
  const dial = async () => {
    const line = await dialLine({ address, ...secrets, deadlineMs: DEADLINE_MS, signal });
    t.after(() => line.close());
    const events = new EventEmitter();
    line.handler = {
      message: () => events.emit("message"),
      closed: () => events.emit("closed"),
    };
    return { line, closed: once(events, "closed"), heard: once(events, "message") };
  };
  const [silent, slow] = [await dial(), await dial()];
  slow.line.send(envelope({ kind: "join", host: "127.0.0.1", workers: 1 }));
  await inTime(slow.heard, "it is sent the job");
  crew.close();
  await inTime(silent.closed, "the machine that has said nothing is let go");
  await inTime(slow.closed, "the machine that has not taken the job is let go");
});

test("a launcher that is told of its successor by an agent ends, and dials no more", async (t) => {
  const agent = await fakeAgent(t, (_, tell, line, connection) => {
    const error = { code: "FENCED", text: "Another launcher leads the run.", fields: {} } as const;
    if (connection > 0) tell({ kind: "refused", error });
    else {
      tell({ kind: "accepted" });
      setImmediate(() => line.close());
    }
  });
  const crew = await open(t, { hosts: [agent.address] });
  const failed = new Promise<unknown>((resolve) => {
    crew.attach(events({ failed: resolve }));
  });
  await inTime(failed, "it ends");
  assert.equal(((await failed) as { readonly code?: string }).code, "FENCED");
});

test("of agents that are taken over, a faulty one costs only its own workers", async (t) => {
  const standing = (worker: number) => ({ worker, generation: 1, isReady: false, step: 3 });
  const faulty = await fakeAgent(t, (_, tell, line) => {
    tell({ kind: "taken-over", workers: [standing(0)] });
    line.send({ v: "nonsense" });
  });
  const good = await fakeAgent(t, (kind, tell) => {
    if (kind !== "take-over") return;
    void faulty.left.then(() => tell({ kind: "taken-over", workers: [standing(1)] }));
  });
  const hosts = [faulty.address, good.address];
  const left = new Map(hosts.entries());
  const crew = await open(t, { hosts, left });
  assert.deepEqual([...crew.taken.keys()], [1]);
  assert.deepEqual(good.heard, ["take-over"]);
  crew.attach(events({})).close();
  await inTime(good.left, "the launcher lets go of the other one");
});
