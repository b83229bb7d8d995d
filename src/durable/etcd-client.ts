/**
 * The few requests to etcd that a store needs, over its JSON gateway (etcd 3.4 and later). Keys and
 * values travel in base64, and numbers of 64 bits as text. Answers are checked.
 */
import { z } from "zod";
import { LockstepError } from "../errors.ts";

const number = z.union([z.string().regex(/^-?\d{1,19}$/), z.int()]).transform(Number);
const pair = z.object({
  key: z.string(),
  value: z.string().default(""),
  create_revision: number,
});
const range = z.object({ kvs: z.array(pair).default([]) });
const header = z.object({ revision: number });
const granted = z.object({ ID: z.string() });
const kept = z.object({ result: z.object({ TTL: number.default(0) }) });
const transacted = z.object({
  header,
  succeeded: z.boolean().default(false),
  responses: z.array(z.object({ response_range: range.optional() })).default([]),
});

export interface Pair {
  readonly value: Buffer;
  readonly revision: number;
}

/** Either the key does not exist (0), or it was made at this revision. */
export interface Condition {
  readonly key: string;
  readonly madeAt: number;
}

export type Operation =
  | { readonly kind: "get"; readonly key: string }
  | {
      readonly kind: "put";
      readonly key: string;
      readonly value: string | Uint8Array;
      readonly lease?: string;
    };

/** How long all members together may take to answer. */
const ANSWER_MS = 5_000;
const ANOTHER = "Is etcd running there, and does it listen for clients at this address?";

export class EtcdClient {
  readonly #urls: readonly string[];

  /** @param urls of the members, any of which answers for all */
  constructor(urls: readonly string[]) {
    this.#urls = urls;
  }

  async grant(ttlSeconds: number): Promise<string> {
    const { ID } = await this.#ask("lease/grant", { TTL: `${ttlSeconds}` }, granted);
    return ID;
  }

  /** Returns whether the lease still exists. */
  async keepAlive(lease: string): Promise<boolean> {
    const { result } = await this.#ask("lease/keepalive", { ID: lease }, kept);
    return result.TTL > 0;
  }

  async revoke(lease: string): Promise<void> {
    await this.#ask("lease/revoke", { ID: lease }, z.unknown());
  }

  /** Does all of `then` if the condition holds, or else all of `otherwise`. */
  async transact(
    { key, madeAt }: Condition,
    then: readonly Operation[],
    otherwise: readonly Operation[],
  ): Promise<{ held: boolean; revision: number; found: (Pair | undefined)[] }> {
    const target = { target: "CREATE", result: "EQUAL", key: base64(key) };
    const body = {
      compare: [{ ...target, create_revision: `${madeAt}` }],
      success: then.map(requestOf),
      failure: otherwise.map(requestOf),
    };
    const { succeeded, header: at, responses } = await this.#ask("kv/txn", body, transacted);
    const found = responses.flatMap(({ response_range }) => {
      if (response_range === undefined) return [];
      const [first] = response_range.kvs;
      if (first === undefined) return [undefined];
      return [{ value: Buffer.from(first.value, "base64"), revision: first.create_revision }];
    });
    return { held: succeeded, revision: at.revision, found };
  }

  async #ask<Answer>(what: string, body: unknown, schema: z.ZodType<Answer>): Promise<Answer> {
    const failures: string[] = [];
    for (const url of this.#urls) {
      try {
        const response = await fetch(`${url}/v3/${what}`, {
          method: "POST",
          body: JSON.stringify(body),
          signal: AbortSignal.timeout(ANSWER_MS / this.#urls.length),
        });
        const text = await response.text();
        if (response.ok) return schema.parse(JSON.parse(text));
        failures.push(`${url} answered ${response.status}: ${text.trim().slice(0, 300)}`);
      } catch (error) {
        failures.push(`${url}: ${reasonOf(error)}`);
      }
    }
    throw new LockstepError("IO_FAILED", `No etcd answered (${what}). ${failures.join("; ")}.`, {
      hint: ANOTHER,
      fields: { urls: [...this.#urls] },
    });
  }
}

function requestOf(operation: Operation): unknown {
  const key = base64(operation.key);
  if (operation.kind === "get") return { request_range: { key } };
  const { value, lease } = operation;
  return { request_put: { key, value: base64(value), ...(lease === undefined ? {} : { lease }) } };
}

function base64(bytes: string | Uint8Array): string {
  return Buffer.from(bytes as Uint8Array).toString("base64");
}

function reasonOf(error: unknown): string {
  if (error instanceof z.ZodError) return "its answer is not one of etcd";
  const { cause, message } = error as Error;
  return cause instanceof Error ? cause.message : message;
}
