/** The communication thread itself: groups, their engine of one thread, and what the other side asks of them. */
import { parentPort } from "node:worker_threads";
import { createOrtEngine } from "../../engine/index.ts";
import { assert } from "../../errors.ts";
import { openMemory } from "../../memory/index.ts";
import {
  joinMachines,
  joinSharedMemory,
  joinTcp,
  listenTcp,
  type TcpListener,
  type Transport,
} from "../../transport/index.ts";
import { Group, type GroupBuffer, type Prepared } from "../group.ts";
import { measureCosts } from "../measure.ts";
import {
  type AbortRequest,
  type Answer,
  type JoinedAnswer,
  type Meeting,
  type PreparedAnswer,
  type Request,
  toPlain,
} from "./messages.ts";

const engine = createOrtEngine({ threads: 1, spin: false });
const groups = new Map<number, Group>();
const buffers = new Map<number, GroupBuffer>();
const prepared = new Map<number, Prepared>();
let listener: TcpListener | undefined;
let lastNumber = 0;

parentPort?.on("message", (request: Request | AbortRequest) => {
  if (request.do === "abort") {
    groups.get(request.group)?.transport.abort(new Error(request.text));
    return;
  }
  const { id } = request;
  const answered = request.do === "run" ? find(prepared, request.prepared).run() : answer(request);
  answered.then(
    (value) => reply({ id, value }),
    (error: unknown) => reply({ id, error: toPlain(error) }),
  );
});

function reply(message: Answer): void {
  parentPort?.postMessage(message);
}

async function answer(request: Exclude<Request, { do: "run" }>): Promise<unknown> {
  switch (request.do) {
    case "listen":
      listener?.close();
      listener = await listenTcp(request.options);
      return listener.address;
    case "join": {
      const { measure = true, ...settings } = request.settings;
      const group = new Group({ ...settings, engine, transport: await join(request.meeting) });
      if (settings.costs === undefined && measure) group.costs = await measureCosts(group);
      return keepGroup(group);
    }
    case "subgroup":
      return keepGroup(await find(groups, request.group).subgroup(request.ranks));
    case "adopt":
      return keep(
        buffers,
        await find(groups, request.group).register(engine.attach(openMemory(request.name))),
      );
    case "prepare": {
      const { data, into, ...options } = request.options;
      const ready = await find(groups, request.group).prepare(request.collective, {
        ...options,
        data: find(buffers, data),
        ...(into === undefined ? {} : { into: find(buffers, into) }),
      });
      const { schedule, estimates } = ready;
      const number = keep(prepared, ready);
      return {
        prepared: number,
        algorithm: schedule.algorithm,
        estimates,
      } satisfies PreparedAnswer;
    }
    case "release":
      find(prepared, request.prepared).close();
      prepared.delete(request.prepared);
      return undefined;
    case "leave":
      await groups.get(request.group)?.close();
      groups.delete(request.group);
      return undefined;
    case "close":
      for (const group of groups.values()) await group.close();
      listener?.close();
      await engine.close();
      parentPort?.close();
      return undefined;
  }
}

function join(meeting: Meeting): Promise<Transport> {
  if (meeting.kind === "shared-memory") return joinSharedMemory(meeting);
  assert(listener !== undefined, "listen before joining over TCP");
  if (meeting.kind === "tcp") return joinTcp({ ...meeting, listener });
  return joinOverMachines(meeting, listener);
}

async function joinOverMachines(
  meeting: Extract<Meeting, { kind: "machines" }>,
  door: TcpListener,
): Promise<Transport> {
  const { rank, name, machines } = meeting;
  const names = machines.find((ranks) => ranks.includes(rank)) ?? [rank];
  const peers = machines.flat().filter((peer) => !names.includes(peer));
  const place = { rank: names.indexOf(rank), size: names.length, names };
  const [local, network] = await Promise.all([
    joinSharedMemory({ ...meeting, ...place, name: `${name}-${names[0]}` }),
    joinTcp({ ...meeting, listener: door, peers }),
  ]);
  return joinMachines({ ...meeting, local, network });
}

function keepGroup(group: Group): JoinedAnswer {
  const number = keep(groups, group);
  const { signal } = group.transport;
  signal.addEventListener("abort", () => {
    reply({ id: -1, group: number, error: toPlain(signal.reason) });
  });
  return { group: number, costs: group.costs };
}

function keep<T>(map: Map<number, T>, value: T): number {
  lastNumber += 1;
  map.set(lastNumber, value);
  return lastNumber;
}

function find<T>(map: ReadonlyMap<number, T>, number: number): T {
  const value = map.get(number);
  assert(value !== undefined, `number ${number} is known to the communication thread`);
  return value;
}
