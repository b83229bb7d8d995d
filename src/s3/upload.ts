/** Writes large objects: in parts, of which several are on their way at once. */
import { LockstepError } from "../errors.ts";
import type { Bucket } from "./bucket.ts";
import { textOf } from "./errors.ts";
import { elements, field } from "./xml.ts";

/** The bytes of a part: S3 takes 5 MiB at least, except for the last. */
const PART_BYTES = 2 ** 23;
const MOST_PARTS = 10_000;
const AT_ONCE = 4;
/** The largest object that is copied in one request: S3 takes 5 GiB. */
const COPY_BYTES = 2 ** 30;

/**
 * Writes an object of a known size. A reader sees it when it is whole. Each piece is valid until the
 * next is asked for. After an error nothing of it stays.
 * @throws STORE, DISK_FULL; and what `pieces` throws
 */
export async function upload(
  bucket: Bucket,
  key: string,
  byteLength: number,
  pieces: AsyncIterable<Uint8Array>,
): Promise<void> {
  const partBytes = Math.max(PART_BYTES, Math.ceil(byteLength / MOST_PARTS));
  if (byteLength <= partBytes) {
    for await (const whole of inParts(pieces, partBytes)) return bucket.put(key, whole);
    return bucket.put(key, new Uint8Array());
  }
  await inUpload(bucket, key, async (uploadId, parts) => {
    for await (const body of inParts(pieces, partBytes)) {
      await parts.add(async (partNumber) => {
        const query = { partNumber: String(partNumber), uploadId };
        const asked = { method: "PUT", key, query, body } as const;
        const { headers } = await bucket.request("write", asked);
        return headers.get("etag") ?? "";
      });
    }
  });
}

/** Copies an object within the bucket: no byte of it comes here. @throws STORE, DISK_FULL */
export async function copy(
  bucket: Bucket,
  { from, to, byteLength }: { from: string; to: string; byteLength: number },
): Promise<void> {
  const source = { "x-amz-copy-source": `/${bucket.name}/${from}` };
  if (byteLength <= COPY_BYTES) {
    await bucket.request("write", { method: "PUT", key: to, headers: source });
    return;
  }
  await inUpload(bucket, to, async (uploadId, parts) => {
    for (let at = 0; at < byteLength; at += COPY_BYTES) {
      const range = `bytes=${at}-${Math.min(at + COPY_BYTES, byteLength) - 1}`;
      const headers = { ...source, "x-amz-copy-source-range": range };
      await parts.add(async (partNumber) => {
        const query = { partNumber: String(partNumber), uploadId };
        const asked = { method: "PUT", key: to, query, headers } as const;
        return field(textOf(await bucket.request("write", asked)), "ETag") ?? "";
      });
    }
  });
}

/** Ends uploads that were never completed, such as those of a process that was killed. */
export async function endUploads(
  bucket: Bucket,
  isOld: (key: string) => boolean,
  prefix: string,
): Promise<void> {
  const asked = { method: "GET", key: "", query: { uploads: "", prefix } } as const;
  const xml = textOf(await bucket.request("list", asked));
  for (const one of elements(xml, "Upload")) {
    const [key, uploadId] = [field(one, "Key"), field(one, "UploadId")];
    if (key === undefined || uploadId === undefined || !isOld(key)) continue;
    await endUpload(bucket, key, uploadId);
  }
}

async function endUpload(bucket: Bucket, key: string, uploadId: string): Promise<void> {
  const asked = { method: "DELETE", key, query: { uploadId }, allowed: [404] } as const;
  await bucket.request("remove", asked);
}

/** @param body adds the parts, in order */
async function inUpload(
  bucket: Bucket,
  key: string,
  body: (uploadId: string, parts: Parts) => Promise<void>,
): Promise<void> {
  const begun = await bucket.request("write", { method: "POST", key, query: { uploads: "" } });
  const uploadId = field(textOf(begun), "UploadId");
  if (uploadId === undefined) {
    throw new LockstepError("STORE", `"${bucket.address(key)}" cannot be written in parts.`, {
      hint: "Does the server know multipart uploads?",
    });
  }
  const parts = new Parts();
  try {
    await body(uploadId, parts);
    const etags = await parts.all();
    const named = etags.map(
      (etag, index) => `<Part><PartNumber>${index + 1}</PartNumber><ETag>${etag}</ETag></Part>`,
    );
    const text = `<CompleteMultipartUpload>${named.join("")}</CompleteMultipartUpload>`;
    const end = new TextEncoder().encode(text);
    const asked = { method: "POST", key, query: { uploadId }, body: end } as const;
    const { status } = await bucket.request("write", { ...asked, allowed: [404] });
    // The answer of an earlier try may be lost: the upload has ended, and the object is there.
    if (status === 404 && (await bucket.sizeOf(key)) === undefined) throw lostUpload(bucket, key);
  } catch (error) {
    // A part that comes after the end of its upload would stay. Each has a deadline.
    await parts.all().catch(() => undefined);
    // What is left costs space. Where the server is gone, `endUploads` does it later.
    await endUpload(bucket.impatient, key, uploadId).catch(() => undefined);
    throw error;
  }
}

function lostUpload(bucket: Bucket, key: string): LockstepError {
  const text = `"${bucket.address(key)}" cannot be written: the server has given the upload up.`;
  return new LockstepError("STORE", text);
}

/** Gathers pieces into parts of one size. Each part has memory of its own. */
async function* inParts(
  pieces: AsyncIterable<Uint8Array>,
  partBytes: number,
): AsyncGenerator<Uint8Array> {
  let [part, filled] = [new Uint8Array(partBytes), 0];
  for await (const piece of pieces) {
    for (let at = 0; at < piece.byteLength; ) {
      const taken = piece.subarray(at, at + partBytes - filled);
      part.set(taken, filled);
      filled += taken.byteLength;
      at += taken.byteLength;
      if (filled < partBytes) continue;
      yield part;
      [part, filled] = [new Uint8Array(partBytes), 0];
    }
  }
  if (filled > 0) yield part.subarray(0, filled);
}

/** The parts of one upload, a few of which are on their way. */
class Parts {
  readonly #etags: string[] = [];
  readonly #underWay = new Set<Promise<void>>();
  #count = 0;
  #failure: { readonly error: unknown } | undefined;

  /** Waits until there is room for one more. @throws what an earlier part has thrown */
  async add(send: (partNumber: number) => Promise<string>): Promise<void> {
    const number = ++this.#count;
    const sent = send(number)
      .then((etag) => {
        this.#etags[number - 1] = etag;
      })
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => this.#underWay.delete(sent));
    this.#underWay.add(sent);
    if (this.#underWay.size >= AT_ONCE) await Promise.race(this.#underWay);
    this.#check();
  }

  async all(): Promise<readonly string[]> {
    await Promise.all(this.#underWay);
    this.#check();
    return this.#etags;
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
