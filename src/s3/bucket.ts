/**
 * The objects of one bucket. Each request is signed, has a deadline, and is sent again when what
 * was wrong may pass. It knows nothing of what the objects are.
 */
import { setTimeout as delay } from "node:timers/promises";
import { AwsV4Signer } from "aws4fetch";
import { type Answer, codeOf, isPassing, refusal, textOf, unreachable } from "./errors.ts";
import type { S3Access } from "./place.ts";
import { elements, field } from "./xml.ts";

export interface Patience {
  /** How often a request is sent before it has failed. */
  readonly tries: number;
  /** The milliseconds before the second try; each further wait is three times as long. */
  readonly pauseMs: number;
  /** The milliseconds that a request without a body may take. */
  readonly answerMs: number;
  /** The slowest transfer of a body that is waited for, in bytes per second. */
  readonly slowest: number;
  /** The milliseconds after which a request is not sent again. */
  readonly againMs: number;
}

const PATIENCE: Patience = {
  tries: 5,
  pauseMs: 100,
  answerMs: 30_000,
  slowest: 100_000,
  againMs: 45_000,
};
/** For what may fail: to clean up where a server may be gone. */
const IMPATIENCE: Partial<Patience> = { tries: 1, answerMs: 5_000 };

export interface Asked {
  readonly method: "GET" | "PUT" | "POST" | "DELETE" | "HEAD";
  /** Empty for the bucket itself. */
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** The bytes that the answer has, if they are many. */
  readonly expected?: number;
  /** Statuses of refusals that are answers, too. */
  readonly allowed?: readonly number[];
}

export interface Listed {
  readonly key: string;
  readonly byteLength: number;
  readonly etag: string;
}

export class Bucket {
  readonly name: string;
  readonly #access: S3Access;
  readonly #patience: Patience;

  constructor(name: string, access: S3Access, patience: Partial<Patience> = {}) {
    this.name = name;
    this.#access = access;
    this.#patience = { ...PATIENCE, ...patience };
  }

  /** The same objects, for requests that may fail. */
  get impatient(): Bucket {
    return new Bucket(this.name, this.#access, { ...this.#patience, ...IMPATIENCE });
  }

  /** The address of an object, for messages. */
  address(key: string): string {
    return `s3://${this.name}/${key}`;
  }

  /** @param doing a verb, for errors. @throws STORE, DISK_FULL */
  async request(doing: string, asked: Asked): Promise<Answer> {
    const what = `${doing} "${this.address(asked.key)}"`;
    const { tries, pauseMs, againMs } = this.#patience;
    const end = performance.now() + againMs;
    for (let left = tries - 1, pause = pauseMs; ; left--, pause *= 3) {
      const isLast = () => left === 0 || performance.now() > end;
      let answer: Answer | undefined;
      try {
        answer = await this.#send(asked);
        // A copy and the end of an upload can fail after the status was sent.
        const isError = /^\s*(?:<\?xml[^>]*>)?\s*<Error[\s>]/.test(headOf(asked, answer));
        if (answer.status < 300 && !isError) return answer;
        if (asked.allowed?.includes(answer.status) === true) {
          if (codeOf(answer) !== "NoSuchBucket") return answer;
        }
        if (isLast() || !isPassing(answer)) throw refusal(what, answer, this.#access);
      } catch (error) {
        if (answer !== undefined) throw error;
        if (isLast()) throw unreachable(what, error, this.#access);
      }
      await delay(pause);
    }
  }

  async #send(asked: Asked): Promise<Answer> {
    const { method, key, query = {}, headers = {}, body, expected = 0 } = asked;
    const { answerMs, slowest } = this.#patience;
    const { endpoint, isPathStyle, region, ...credentials } = this.#access;
    const url = new URL(isPathStyle ? `${endpoint}/${this.name}/${key}` : `${endpoint}/${key}`);
    if (!isPathStyle) url.host = `${this.name}.${url.host}`;
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    // Not on this thread: it has steps to look after.
    const digest = await crypto.subtle.digest("SHA-256", body ?? new Uint8Array());
    const hash = Buffer.from(digest).toString("hex");
    const signed = await new AwsV4Signer({
      ...credentials,
      method,
      url: url.href,
      region,
      service: "s3",
      headers: { ...headers, "x-amz-content-sha256": hash },
    }).sign();
    const bytes = (body?.byteLength ?? 0) + expected;
    const response = await fetch(signed.url, {
      method,
      headers: signed.headers,
      ...(body === undefined ? {} : { body }),
      redirect: "manual",
      signal: AbortSignal.timeout(Math.ceil(answerMs + (1000 * bytes) / slowest)),
    });
    const answered = new Uint8Array(await response.arrayBuffer());
    return { status: response.status, headers: response.headers, bytes: answered };
  }

  /** Replaces an object, whole or not at all. @throws STORE, DISK_FULL */
  async put(key: string, body: Uint8Array | string): Promise<void> {
    const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
    await this.request("write", { method: "PUT", key, body: bytes });
  }

  /**
   * Writes an object where there is none. Returns false where there is one. A server that does not
   * know this kind of request writes it in any case.
   * @throws STORE, DISK_FULL
   */
  async create(key: string, text: string): Promise<boolean> {
    const headers = { "if-none-match": "*" };
    const body = new TextEncoder().encode(text);
    const allowed = [409, 412, 501];
    const { status } = await this.request("write", { method: "PUT", key, body, headers, allowed });
    if (status === 501) await this.put(key, body);
    return status !== 409 && status !== 412;
  }

  /** Returns undefined where there is no object. @throws STORE */
  async get(key: string): Promise<Uint8Array | undefined> {
    const answer = await this.request("read", { method: "GET", key, allowed: [404] });
    return answer.status === 404 ? undefined : answer.bytes;
  }

  /** Returns the bytes of an object; undefined where there is none. @throws STORE */
  async sizeOf(key: string): Promise<number | undefined> {
    const answer = await this.request("read", { method: "HEAD", key, allowed: [404] });
    if (answer.status === 404) return undefined;
    return Number(answer.headers.get("content-length") ?? Number.NaN);
  }

  /**
   * Reads a range of an object. It has fewer bytes where the object ends earlier, and is undefined
   * where there is no object.
   * @throws STORE
   */
  async read(key: string, start: number, byteLength: number): Promise<Uint8Array | undefined> {
    const headers = { range: `bytes=${start}-${start + byteLength - 1}` };
    const allowed = [404, 416];
    const expected = byteLength;
    const answer = await this.request("read", { method: "GET", key, headers, allowed, expected });
    if (answer.status === 404) return undefined;
    return answer.status === 416 ? new Uint8Array() : answer.bytes;
  }

  /** An object that is not there is no error. @throws STORE */
  async remove(key: string): Promise<void> {
    await this.request("remove", { method: "DELETE", key, allowed: [404] });
  }

  /** All objects whose key begins with `prefix`, in the order of their keys. @throws STORE */
  async list(prefix: string): Promise<Listed[]> {
    const found: Listed[] = [];
    for (let after: string | undefined; ; ) {
      const more = after === undefined ? {} : { "continuation-token": after };
      const query = { "list-type": "2", prefix, ...more };
      const answer = await this.request("list", { method: "GET", key: "", query });
      const xml = textOf(answer);
      for (const one of elements(xml, "Contents")) {
        const [key = "", size] = [field(one, "Key"), field(one, "Size")];
        found.push({ key, byteLength: Number(size), etag: field(one, "ETag") ?? "" });
      }
      if (field(xml, "IsTruncated") !== "true") return found;
      after = field(xml, "NextContinuationToken");
      if (after === undefined) return found;
    }
  }
}

/** The beginning of an answer that can tell an error with a status of success. */
function headOf({ method }: Asked, { bytes }: Answer): string {
  return method === "GET" ? "" : new TextDecoder().decode(bytes.subarray(0, 100));
}
