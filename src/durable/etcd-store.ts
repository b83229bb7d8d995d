/**
 * A store in etcd. The owner's key exists as long as its lease, which it renews; its term is the
 * revision of etcd at which the key was made, and every write is a transaction that requires that
 * this very key is there. So whoever was away for too long writes nothing any more.
 */
import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { gunzip, gzip } from "node:zlib";
import { LockstepError } from "../errors.ts";
import { EtcdClient } from "./etcd-client.ts";
import { fenced, LatestWriter, type StateStore } from "./store.ts";

export interface EtcdOptions {
  /** For how long an owner that says nothing keeps the store. Default: 5 s. */
  readonly leaseSeconds?: number;
  /** Aborting it ends the wait for an owner that may be gone. */
  readonly signal?: AbortSignal;
}

const LEASE_SECONDS = 5;
const LOOK_MS = 250;

/**
 * @param urls of the members of etcd, for example http://127.0.0.1:2379
 * @param name what the keys of this run begin with
 * @throws RUN_LOCKED while another coordinator has the store and lives; IO_FAILED
 */
export async function openEtcdStore(
  urls: readonly string[],
  name: string,
  { leaseSeconds = LEASE_SECONDS, signal }: EtcdOptions = {},
): Promise<StateStore> {
  const client = new EtcdClient(urls);
  const place = `etcd ${urls.join(", ")}, ${name}`;
  const keys = { owner: `${name}/owner`, state: `${name}/state` };
  // A lease is renewed three times in its life: one that is not is over after it.
  const end = performance.now() + 1000 * leaseSeconds + 2 * LOOK_MS;
  const lease = await client.grant(leaseSeconds);
  try {
    for (;;) {
      const owner = JSON.stringify({ host: hostname(), pid: process.pid });
      const { held, revision, found } = await client.transact(
        { key: keys.owner, madeAt: 0 },
        [
          { kind: "put", key: keys.owner, value: owner, lease },
          { kind: "get", key: keys.state },
        ],
        [{ kind: "get", key: keys.owner }],
      );
      if (held) {
        const last = found[0] && (await stateIn(found[0].value, place));
        return new EtcdStore({ client, place, keys, lease, leaseSeconds, term: revision, last });
      }
      if (performance.now() > end) throw locked(place, found[0]?.value);
      await client.keepAlive(lease);
      await delay(LOOK_MS);
      signal?.throwIfAborted();
    }
  } catch (error) {
    await client.revoke(lease).catch(() => undefined); // it ends by itself
    throw error;
  }
}

interface Taken {
  readonly client: EtcdClient;
  readonly place: string;
  readonly keys: { readonly owner: string; readonly state: string };
  readonly lease: string;
  readonly leaseSeconds: number;
  readonly term: number;
  readonly last: unknown;
}

class EtcdStore implements StateStore {
  readonly place: string;
  readonly term: number;
  readonly last: unknown;
  readonly #taken: Taken;
  readonly #writer = new LatestWriter((text) => this.#put(text));
  readonly #renewal: NodeJS.Timeout;

  constructor(taken: Taken) {
    this.#taken = taken;
    ({ place: this.place, term: this.term, last: this.last } = taken);
    const { client, lease, leaseSeconds } = taken;
    // A renewal that fails shows at the next write, if the lease has ended for it.
    const renew = () => void client.keepAlive(lease).catch(() => undefined);
    this.#renewal = setInterval(renew, (1000 * leaseSeconds) / 3).unref();
  }

  write(state: unknown): Promise<void> {
    return this.#writer.write(state);
  }

  async close(): Promise<void> {
    await this.#writer.idle();
    clearInterval(this.#renewal);
    await this.#taken.client.revoke(this.#taken.lease).catch(() => undefined); // it ends by itself
  }

  /** A request to etcd takes 1.5 MiB at most, so states are compressed. */
  async #put(text: string): Promise<void> {
    const { client, keys } = this.#taken;
    const { held, found } = await client.transact(
      { key: keys.owner, madeAt: this.term },
      [{ kind: "put", key: keys.state, value: await promisify(gzip)(text) }],
      [{ kind: "get", key: keys.owner }],
    );
    if (!held) throw fenced(this.place, this.term, found[0]?.revision);
  }
}

/** Throws FILE_CORRUPT. */
async function stateIn(value: Uint8Array, place: string): Promise<unknown> {
  try {
    return JSON.parse((await promisify(gunzip)(value)).toString("utf8")) as unknown;
  } catch (error) {
    throw new LockstepError("FILE_CORRUPT", `What is in "${place}" is not the state of a run.`, {
      hint: "Give the run another name there, or delete what was written under this one.",
      fields: { place },
      cause: error,
    });
  }
}

function locked(place: string, owner: Uint8Array | undefined): LockstepError {
  const { host, pid } = ownerIn(owner);
  const text = `A run is being led from "${place}" by process ${pid} on "${host}".`;
  return new LockstepError("RUN_LOCKED", text, {
    hint: "Wait for its end, stop it, or give the run another name.",
    fields: { place, host, pid },
  });
}

function ownerIn(bytes: Uint8Array | undefined): { host: string; pid: number } {
  const unknown = { host: "unknown", pid: 0 };
  try {
    const text = Buffer.from(bytes ?? []).toString("utf8");
    return { ...unknown, ...(JSON.parse(text) as object) };
  } catch {
    return unknown;
  }
}
