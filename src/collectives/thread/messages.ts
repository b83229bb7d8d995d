/** What the two sides of a communication thread say to each other. */
import { type ErrorCode, type ErrorFields, LockstepError } from "../../errors.ts";
import type { ListenOptions, SharedMemoryOptions, TcpOptions } from "../../transport/index.ts";
import type { CostModel } from "../cost.ts";
import type { GroupSettings, PrepareOptions } from "../group.ts";
import type { Collective } from "../request.ts";

/** Where a rank meets the others. */
export type Meeting =
  | ({ readonly kind: "shared-memory" } & Omit<SharedMemoryOptions, "signal" | "wait">)
  | ({ readonly kind: "tcp" } & Omit<TcpOptions, "signal" | "listener">)
  /** Over several machines: TCP to the ranks of others, and shared memory under a name that each machine has for itself. */
  | ({
      readonly kind: "machines";
      readonly name: string;
      readonly machines: readonly (readonly number[])[];
    } & Omit<TcpOptions, "signal" | "listener" | "peers">);

export interface JoinSettings extends Pick<GroupSettings, "costs" | "algorithms" | "canonical"> {
  /** Measures costs after joining, unless they are given; true unless told. */
  readonly measure?: boolean;
}

export interface ThreadPrepareOptions extends Omit<PrepareOptions, "data" | "into"> {
  /** Numbers of adopted buffers. */
  readonly data: number;
  readonly into?: number;
}

/** Each with the number of its answer. */
export type Request = { readonly id: number } & (
  | { readonly do: "listen"; readonly options: ListenOptions }
  | { readonly do: "join"; readonly meeting: Meeting; readonly settings: JoinSettings }
  | { readonly do: "subgroup"; readonly group: number; readonly ranks: readonly number[] }
  | { readonly do: "adopt"; readonly group: number; readonly name: string }
  | {
      readonly do: "prepare";
      readonly group: number;
      readonly collective: Collective;
      readonly options: ThreadPrepareOptions;
    }
  | { readonly do: "run"; readonly prepared: number }
  | { readonly do: "release"; readonly prepared: number }
  | { readonly do: "leave"; readonly group: number }
  | { readonly do: "close" }
);

/** Has no answer. */
export interface AbortRequest {
  readonly id: -1;
  readonly do: "abort";
  readonly group: number;
  readonly text: string;
}

export interface JoinedAnswer {
  readonly group: number;
  readonly costs: CostModel;
}

export interface PreparedAnswer {
  readonly prepared: number;
  readonly algorithm: string;
  readonly estimates: Readonly<Record<string, number>>;
}

export type Answer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: PlainError }
  /** A group has failed. */
  | { readonly id: -1; readonly group: number; readonly error: PlainError };

export interface PlainError {
  readonly code: ErrorCode | undefined;
  readonly message: string;
  readonly fields: ErrorFields;
}

export function toPlain(error: unknown): PlainError {
  if (error instanceof LockstepError) {
    return { code: error.code, message: error.message, fields: error.fields };
  }
  return {
    code: undefined,
    message: error instanceof Error ? error.message : String(error),
    fields: {},
  };
}

export function fromPlain({ code, message, fields }: PlainError): Error {
  return code === undefined ? new Error(message) : new LockstepError(code, message, { fields });
}
