/** What S3's refusals mean for a user, and which of them pass by themselves. */
import { type ErrorCode, LockstepError } from "../errors.ts";
import type { S3Access } from "./place.ts";
import { field } from "./xml.ts";

/** An answer of the server. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly bytes: Uint8Array;
}

export function textOf({ bytes }: Answer): string {
  return new TextDecoder().decode(bytes);
}

const BUSY = /^(?:SlowDown|ServiceUnavailable|InternalError|RequestTimeout|OperationAborted)$/;

/** Whether the same request may succeed a little later. */
export function isPassing(answer: Answer): boolean {
  if ([429, 500, 502, 503, 504].includes(answer.status)) return true;
  return answer.status >= 400 && BUSY.test(codeOf(answer) ?? "");
}

/** The server's own code of an error, such as `NoSuchBucket`. */
export function codeOf(answer: Answer): string | undefined {
  return field(textOf(answer), "Code");
}

/** @param what was done to which object, as "write s3://bucket/key" */
export function refusal(what: string, answer: Answer, access: S3Access): LockstepError {
  const code = codeOf(answer) ?? `status ${answer.status}`;
  const [kind, why, hint] = explain(code, answer, access);
  return new LockstepError(kind, `Cannot ${what}: ${why}.`, {
    ...(hint === undefined ? {} : { hint }),
    fields: { endpoint: access.endpoint, status: answer.status, systemCode: code },
  });
}

function explain(
  code: string,
  answer: Answer,
  { endpoint, region }: S3Access,
): [ErrorCode, string, string?] {
  const credentials = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN";
  switch (code) {
    case "NoSuchBucket":
      return [
        "STORE",
        `${endpoint} has no such bucket`,
        "Make the bucket, or check its name, AWS_ENDPOINT_URL_S3 and AWS_REGION.",
      ];
    case "InvalidAccessKeyId":
    case "SignatureDoesNotMatch":
    case "InvalidToken":
      return [
        "STORE",
        `${endpoint} does not accept the credentials (${code})`,
        `Check ${credentials}.`,
      ];
    case "ExpiredToken":
    case "TokenRefreshRequired":
      return [
        "STORE",
        `the credentials are not valid any more (${code})`,
        `Set ${credentials} anew.`,
      ];
    case "AccessDenied":
    case "AllAccessDisabled":
      return [
        "STORE",
        `these credentials do not permit it (${code})`,
        "They need to list the bucket, and to get, put and delete objects in it.",
      ];
    case "RequestTimeTooSkewed":
      return [
        "STORE",
        "the clocks of this machine and of the server differ too much",
        "Set the clock of this machine: `timedatectl set-ntp true` keeps it right.",
      ];
    case "PermanentRedirect":
    case "AuthorizationHeaderMalformed":
    case "IncorrectEndpoint": {
      const other = answer.headers.get("x-amz-bucket-region") ?? field(textOf(answer), "Region");
      const where = other === undefined ? "another region" : `the region ${other}`;
      return [
        "STORE",
        `the bucket is in ${where}, not in ${region}`,
        "Set AWS_REGION, and AWS_ENDPOINT_URL_S3 if it names a region.",
      ];
    }
    case "QuotaExceeded":
    case "InsufficientStorage":
    case "XMinioStorageFull":
    case "status 507":
      return ["DISK_FULL", `the storage is full (${code})`, "Free some space there."];
    default: {
      const message = field(textOf(answer), "Message");
      return [
        "STORE",
        `${endpoint} answers ${code}${message === undefined ? "" : ` (${message})`}`,
      ];
    }
  }
}

/** @param error of a request that got no answer */
export function unreachable(what: string, error: unknown, { endpoint }: S3Access): LockstepError {
  return new LockstepError("STORE", `Cannot ${what}: ${endpoint} ${reasonOf(error)}.`, {
    hint: "Is the server running, and is AWS_ENDPOINT_URL_S3 its address?",
    fields: { endpoint },
    cause: error,
  });
}

function reasonOf(error: unknown): string {
  if (error instanceof Error && error.name === "TimeoutError") return "does not answer";
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const { code } = cause as NodeJS.ErrnoException;
  if (code === "ECONNREFUSED") return "accepts no connection";
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") return "has no address";
  return `cannot be reached (${code ?? (cause instanceof Error ? cause.message : String(cause))})`;
}
