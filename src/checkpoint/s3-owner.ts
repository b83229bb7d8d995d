/**
 * Which run owns a prefix of a bucket: an object that names its owner, who writes a new number into
 * it every few seconds. A bucket has no locks that end with a process, so an owner whose number has
 * not changed for a while counts as gone, and one that finds another's name has lost the prefix. No
 * clocks are compared.
 */
import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { z } from "zod";
import { LockstepError } from "../errors.ts";
import type { Bucket } from "../s3/index.ts";
import type { Holder, HoldOptions } from "./store.ts";

/** The milliseconds after which an owner writes a new number. */
const BEAT_MS = 5_000;
/** The milliseconds without a new number after which an owner counts as gone. */
const WATCH_MS = 3 * BEAT_MS + 1_000;
const LOOK_MS = 1_000;
/** The milliseconds in which two that begin at once see each other. */
const SETTLE_MS = 500;
/** How often another may have been faster. */
const MOST_TRIES = 10;

const schema = z.object({
  id: z.string(),
  beat: z.int(),
  run: z.string().optional(),
  host: z.string(),
  pid: z.int(),
  space: z.string(),
  since: z.string(),
});
type Owner = z.infer<typeof schema>;

/** What the object has. */
interface Found {
  /** Changes when the owner writes a new number, whatever else it says. */
  readonly text: string;
  /** Undefined for a text that cannot be understood, as of another version. */
  readonly owner: Owner | undefined;
}

export interface TakeOptions extends HoldOptions {
  /** The name of the object. */
  readonly key: string;
  readonly by: Holder;
  /** Default: 16 s. */
  readonly watchMs?: number | undefined;
}

export class S3Owner {
  readonly #bucket: Bucket;
  readonly #key: string;
  readonly #id: string;
  readonly #by: Holder;
  #timer: NodeJS.Timeout | undefined;
  #beats = 0;
  #beating: Promise<void> | undefined;

  private constructor(bucket: Bucket, { key, by }: TakeOptions) {
    this.#bucket = bucket;
    this.#key = key;
    this.#by = by;
    this.#id = randomBytes(8).toString("hex");
  }

  /** @throws RUN_LOCKED naming the owner; STORE, DISK_FULL; the reason of `signal` */
  static async take(bucket: Bucket, options: TakeOptions): Promise<S3Owner> {
    const own = new S3Owner(bucket, options);
    for (let left = MOST_TRIES; left > 0; left--) {
      const found = await own.#read();
      if (found !== undefined && !isGone(found.owner, options.by)) await own.#watch(found, options);
      // It may have changed hands meanwhile.
      const now = await own.#read();
      if (now !== undefined && now.text !== found?.text) continue;
      if (now !== undefined) await bucket.put(options.key, own.#text());
      else if (!(await bucket.create(options.key, own.#text()))) continue;
      // Of several runs that begin at once, the last to write owns it. A run has one leader.
      if (!isSameRun(now?.owner, options.by)) await delay(SETTLE_MS);
      if ((await own.#read())?.owner?.id !== own.#id) continue;
      own.#timer = setInterval(() => own.#beat(), BEAT_MS).unref();
      return own;
    }
    throw locked(bucket.address(options.key), await own.#read());
  }

  #text(): string {
    return JSON.stringify({ ...this.#by, id: this.#id, beat: this.#beats });
  }

  async #read(): Promise<Found | undefined> {
    const bytes = await this.#bucket.get(this.#key);
    if (bytes === undefined) return undefined;
    const text = new TextDecoder().decode(bytes);
    return { text, owner: ownerIn(text) };
  }

  /** Waits until an owner counts as gone. @throws RUN_LOCKED when it writes a new number */
  async #watch(first: Found, options: TakeOptions): Promise<void> {
    const { watchMs = WATCH_MS, signal, onWatch } = options;
    const { place, who } = placeOf(this.#bucket.address(this.#key), first.owner);
    onWatch?.(
      `"${place}" belongs to ${who}. That is watched for ${watchMs / 1000} s; this run goes on if it writes nothing.`,
    );
    const end = performance.now() + watchMs;
    while (performance.now() < end) {
      await delay(Math.min(LOOK_MS, watchMs));
      signal?.throwIfAborted();
      const found = await this.#read();
      if (found === undefined) return;
      if (found.text !== first.text) throw locked(this.#bucket.address(this.#key), found);
    }
  }

  /** A number that cannot be written is made up for by the next. */
  #beat(): void {
    this.#beating ??= this.#tellAlive()
      .catch((error: unknown) => {
        if (error instanceof LockstepError && error.code === "RUN_LOCKED")
          clearInterval(this.#timer);
      })
      .finally(() => {
        this.#beating = undefined;
      });
  }

  async #tellAlive(): Promise<void> {
    await this.check();
    this.#beats += 1;
    await this.#bucket.impatient.put(this.#key, this.#text());
  }

  /** Called before a checkpoint is completed. @throws RUN_LOCKED when another owns the prefix; STORE */
  async check(): Promise<void> {
    const found = await this.#read();
    // What cannot be understood was not written by an owner: the next number replaces it.
    if (found?.owner !== undefined && found.owner.id !== this.#id) {
      throw locked(this.#bucket.address(this.#key), found);
    }
  }

  /** Removes the object if it is still this owner's. It throws nothing. */
  async release(): Promise<void> {
    clearInterval(this.#timer);
    await this.#beating;
    try {
      await this.check();
      await this.#bucket.impatient.remove(this.#key);
    } catch (error) {
      // Whoever comes next sees no new number.
      if (!(error instanceof LockstepError)) throw error;
    }
  }
}

function ownerIn(text: string): Owner | undefined {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Whether an owner need not be watched: it is a process that has ended, or led the same run. */
function isGone(owner: Owner | undefined, by: Holder): boolean {
  if (owner === undefined) return false;
  const { space, pid } = owner;
  if (isSameRun(owner, by)) return true;
  if (space !== by.space || pid === by.pid) return false;
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ESRCH";
  }
}

function isSameRun(owner: Owner | undefined, { run }: Holder): boolean {
  return run !== undefined && owner?.run === run;
}

function locked(path: string, { owner }: Partial<Found> = {}): LockstepError {
  const { host = "unknown", pid = 0, since = "" } = owner ?? {};
  const { place, who } = placeOf(path, owner);
  return new LockstepError("RUN_LOCKED", `Checkpoints are being written to "${place}" by ${who}.`, {
    hint: "Wait for the end of that run, stop it, or name another place with --checkpoints.",
    fields: { path, host, pid, since },
  });
}

/** The prefix, and who writes there, in words. */
function placeOf(path: string, owner: Owner | undefined): { place: string; who: string } {
  const place = path.slice(0, path.lastIndexOf("/"));
  if (owner === undefined) return { place, who: "another process" };
  const { host, pid, since } = owner;
  return { place, who: `process ${pid} on "${host}", since ${since}` };
}
