/**
 * Checkpoints in a bucket, under a prefix. A checkpoint is there when `step-N/manifest.json` is
 * there, which is written last and names shards that are whole; each shard has a name of its own, so
 * nothing that a manifest names is ever overwritten. Objects `.step-N.ID.tmp/…` say that a draft was
 * begun and how its writers have ended. They stay when a process is killed: the next one finds in
 * them what it may remove.
 */
import { LockstepError } from "../errors.ts";
import { type Bucket, copy, endUploads, type Listed, type S3Place, upload } from "../s3/index.ts";
import { untilAllEnded } from "./gather.ts";
import { MANIFEST, type Manifest, manifestText, readManifest, type Shard } from "./manifest.ts";
import { asideName, draftName, draftOf, stepName, stepOf, writing } from "./names.ts";
import { type ShardFiles, type Source, sourceOf } from "./read.ts";
import { S3Owner } from "./s3-owner.ts";
import type { CheckpointStore, Hold, Holder, HoldOptions, ShardBytes } from "./store.ts";
import { hashed } from "./write.ts";

/** The milliseconds between two looks at the shards of others. */
const LOOK_MS = 250;
/** The milliseconds after which a writer says again that it goes on. */
const BEAT_MS = 60_000;
/** The object that says which run owns the prefix. */
const OWNER = "owner.json";
/** The object that says that a draft was begun. */
const BEGUN = "begun";

export class S3Store implements CheckpointStore {
  readonly place: string;
  readonly isEverywhere = true;
  readonly isOnDisk = false;
  readonly #bucket: Bucket;
  readonly #prefix: string;
  #owner: S3Owner | undefined;

  constructor(bucket: Bucket, { prefix }: S3Place) {
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.place = bucket.address(prefix).replace(/\/$/, "");
  }

  async hold(by: Holder, options: HoldOptions = {}): Promise<Hold> {
    this.#owner = await S3Owner.take(this.#bucket, { ...options, key: this.#key(OWNER), by });
    return this.#owner;
  }

  pathOf(step: number): string {
    return this.#bucket.address(this.#key(stepName(step)));
  }

  #key(...names: readonly string[]): string {
    return this.#prefix + names.join("/");
  }

  async steps(): Promise<number[]> {
    const names = await this.#list("step-");
    return names
      .flatMap(({ name }) => {
        const [folder = "", file, more] = name.split("/");
        return file === MANIFEST && more === undefined ? (stepOf(folder) ?? []) : [];
      })
      .sort((a, b) => a - b);
  }

  /** The objects whose name, without the prefix of the store, begins with `start`. */
  async #list(start: string): Promise<(Listed & { readonly name: string })[]> {
    const found = await this.#bucket.list(this.#key(start));
    return found.map((one) => ({ ...one, name: one.key.slice(this.#prefix.length) }));
  }

  async manifest(step: number): Promise<Manifest> {
    const key = this.#key(stepName(step), MANIFEST);
    return readManifest({
      checkpoint: this.pathOf(step),
      path: this.#bucket.address(key),
      step,
      byteLength: await this.#bucket.sizeOf(key),
      read: async () => {
        const bytes = await this.#bucket.get(key);
        if (bytes === undefined) throw notThere(key, this.#bucket);
        return bytes;
      },
    });
  }

  source(step: number, manifest: Manifest): Source {
    const keys = manifest.shards.map(({ file }) => this.#key(stepName(step), file));
    return sourceOf(objectsOf(this.#bucket, keys), manifest);
  }

  /** Training waits for it, so it asks the server for nothing: each writer begins the draft. */
  async begin(step: number): Promise<string> {
    return draftName(step);
  }

  async write(draft: string, rank: number, { byteLength, pieces }: ShardBytes): Promise<void> {
    let beats = 0;
    // The parts of an upload are not visible. A beat that is lost is made up for by the next.
    const beat = setInterval(() => {
      const told = this.#bucket.put(this.#key(draft, writing.part(rank)), String(++beats));
      told.catch(() => undefined);
    }, BEAT_MS);
    try {
      await this.#bucket.put(this.#key(draft, BEGUN), "");
      const shard = hashed(pieces);
      await upload(this.#bucket, this.#shardKey(draft, rank), byteLength, shard.pieces);
      await this.#bucket.put(this.#key(draft, writing.done(rank, shard.sha256())), "");
    } catch (error) {
      const code = error instanceof LockstepError ? error.code : "BUG";
      const told = this.#bucket.impatient.put(this.#key(draft, writing.failed(rank, code)), "");
      await told.catch(() => undefined);
      throw error;
    } finally {
      clearInterval(beat);
    }
  }

  #shardKey(draft: string, rank: number): string {
    const { step, id } = knownDraft(draft);
    return this.#key(stepName(step), shardFile(id, rank));
  }

  async gather(draft: string, writers: readonly number[], signal?: AbortSignal): Promise<Shard[]> {
    const { step, id } = knownDraft(draft);
    const look = async () => {
      const found = await this.#list(`${draft}/`);
      const names = found.map(({ name }) => name.slice(draft.length + 1));
      return { names, progress: found.map(({ etag }) => etag).join() };
    };
    const path = this.pathOf(step);
    const found = await untilAllEnded({ path, writers, look, pauseMs: LOOK_MS, signal });
    return Promise.all(
      writers.map(async (rank) => {
        const byteLength = await this.#bucket.sizeOf(this.#shardKey(draft, rank));
        if (byteLength === undefined) throw notThere(this.#shardKey(draft, rank), this.#bucket);
        return { file: shardFile(id, rank), byteLength, sha256: found.get(rank) as string };
      }),
    );
  }

  async publish(_draft: string, manifest: Manifest): Promise<string> {
    await this.#owner?.check();
    const folder = stepName(manifest.step);
    await this.#bucket.put(this.#key(folder, MANIFEST), manifestText(manifest));
    // From here on it is there. What is not removed now is removed after the next.
    const own = new Set([MANIFEST, ...manifest.shards.map(({ file }) => file)]);
    await tidy(async () => {
      const all = await this.#list(`${folder}/`);
      const old = all.filter(({ name }) => !own.has(name.slice(folder.length + 1)));
      await this.#removeAll(old);
      await this.removeDrafts();
    });
    return this.pathOf(manifest.step);
  }

  discard(draft: string): Promise<void> {
    const impatient = new S3Store(this.#bucket.impatient, { bucket: "", prefix: this.#prefix });
    return tidy(() => impatient.#removeDraft(draft));
  }

  /** There is one draft at a time, so all others belong to processes that were killed. */
  async removeDrafts(): Promise<void> {
    const found = await this.#list(".step-");
    const drafts = new Set(found.map(({ name }) => name.split("/")[0] as string));
    for (const draft of drafts) if (draftOf(draft) !== undefined) await this.#removeDraft(draft);
  }

  /** Removes what a draft has left, unless it has become the checkpoint of its step. */
  async #removeDraft(draft: string): Promise<void> {
    const { step, id } = knownDraft(draft);
    const folder = stepName(step);
    const objects = await this.#list(`${folder}/${id}.`);
    const isCheckpoint = objects.length > 0 && (await this.#namesShardsOf(step, id));
    const isOwn = (key: string) => key.startsWith(this.#key(folder, `${id}.`));
    await endUploads(this.#bucket, isOwn, this.#key(folder, ""));
    if (!isCheckpoint) await this.#removeAll(objects);
    await this.#removeAll(await this.#list(`${draft}/`));
  }

  async #namesShardsOf(step: number, id: string): Promise<boolean> {
    const bytes = await this.#bucket.get(this.#key(stepName(step), MANIFEST));
    return bytes !== undefined && new TextDecoder().decode(bytes).includes(`"${id}.`);
  }

  async #removeAll(objects: readonly Listed[]): Promise<void> {
    for (const { key } of objects) await this.#bucket.remove(key);
  }

  async readText(name: string): Promise<string | undefined> {
    const bytes = await this.#bucket.get(this.#key(name));
    return bytes && new TextDecoder().decode(bytes);
  }

  writeText(name: string, text: string): Promise<void> {
    return this.#bucket.put(this.#key(name), text);
  }

  removeText(name: string): Promise<void> {
    return this.#bucket.remove(this.#key(name));
  }

  /** The manifest goes first: what has none is no checkpoint. */
  async remove(step: number): Promise<void> {
    const folder = stepName(step);
    const objects = await this.#list(`${folder}/`);
    const ids = new Set(objects.flatMap(({ name }) => idOf(name.slice(folder.length + 1)) ?? []));
    for (const id of ids) await this.#bucket.put(this.#key(`.${folder}.${id}.tmp`, BEGUN), "");
    await this.#bucket.remove(this.#key(folder, MANIFEST));
    await this.#removeAll(objects);
    for (const id of ids) await this.#bucket.remove(this.#key(`.${folder}.${id}.tmp`, BEGUN));
  }

  /** It replaces an earlier one of that name. */
  async setAside(step: number): Promise<void> {
    await this.#removeAll(await this.#list(`${asideName(step)}/`));
    await this.#move(step, asideName(step));
  }

  async putAway(): Promise<void> {
    const steps = await this.steps();
    if (steps.length === 0) return;
    const names = (await this.#list("earlier-")).map(({ name }) => /^earlier-(\d+)\//.exec(name));
    const number = Math.max(0, ...names.map((found) => Number(found?.[1] ?? 0))) + 1;
    for (const step of steps) await this.#move(step, `earlier-${number}/${stepName(step)}`);
  }

  /** Copies a checkpoint, its manifest last, and then removes it. */
  async #move(step: number, to: string): Promise<void> {
    const folder = stepName(step);
    const objects = await this.#list(`${folder}/`);
    const isManifest = ({ name }: { name: string }) => name === `${folder}/${MANIFEST}`;
    const ordered = objects.toSorted((a, b) => Number(isManifest(a)) - Number(isManifest(b)));
    for (const { key, name, byteLength } of ordered) {
      const file = name.slice(folder.length + 1);
      await copy(this.#bucket, { from: key, to: this.#key(to, file), byteLength });
    }
    await this.remove(step);
  }
}

/** Lets what only costs space fail. */
async function tidy(body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    if (!(error instanceof LockstepError)) throw error;
  }
}

/** A name of its own for each shard that was ever begun. */
function shardFile(id: string, rank: number): string {
  return `${id}.rank-${rank}.safetensors`;
}

function idOf(file: string): string | undefined {
  return /^([0-9a-f]{12})\.rank-\d+\.safetensors$/.exec(file)?.[1];
}

function knownDraft(name: string): { readonly step: number; readonly id: string } {
  const draft = draftOf(name);
  if (draft === undefined) throw new LockstepError("PROTOCOL", `"${name}" is no draft.`);
  return draft;
}

function notThere(key: string, bucket: Bucket): LockstepError {
  const text = `The object "${bucket.address(key)}" is not there.`;
  return new LockstepError("FILE_NOT_FOUND", text, { fields: { path: bucket.address(key) } });
}

/** Objects of a bucket, read in ranges. */
function objectsOf(bucket: Bucket, keys: readonly string[]): ShardFiles {
  const keyOf = (shard: number) => keys[shard] as string;
  return {
    files: keys.map((key) => bucket.address(key)),
    isEverywhere: true,
    whole: { chunkBytes: 2 ** 23, atOnce: 4 },
    sizeOf: (shard) => bucket.sizeOf(keyOf(shard)),
    read: async (shard, start, into) => {
      if (into.byteLength === 0) return;
      const bytes = await bucket.read(keyOf(shard), start, into.byteLength);
      if (bytes === undefined) throw notThere(keyOf(shard), bucket);
      if (bytes.byteLength !== into.byteLength) {
        const path = bucket.address(keyOf(shard));
        const text = `"${path}" has ${bytes.byteLength} bytes from byte ${start} on, but ${into.byteLength} were expected.`;
        throw new LockstepError("FILE_CORRUPT", text, { fields: { path } });
      }
      into.set(bytes);
    },
    close: async () => undefined,
  };
}
