/**
 * Where objects lie, and with which credentials they are reached: an address as
 * `s3://bucket/prefix`, and the environment variables that all programs for S3 know. Credentials go
 * from the environment into signatures, and nowhere else.
 */
import { LockstepError } from "../errors.ts";

export interface S3Place {
  readonly bucket: string;
  /** Ends with a slash, or is empty. */
  readonly prefix: string;
}

export interface S3Access {
  /** A URL without a slash at its end. */
  readonly endpoint: string;
  /** Whether the bucket is the first part of the path; else it is part of the host's name. */
  readonly isPathStyle: boolean;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/** Returns undefined for anything but `s3://bucket` or `s3://bucket/prefix`. */
export function parseS3(address: string): S3Place | undefined {
  const [, bucket, rest = ""] =
    /^s3:\/\/([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:\/(.*))?$/.exec(address) ?? [];
  if (bucket === undefined) return undefined;
  const segments = rest.replace(/\/$/, "").split("/");
  if (rest === "") return { bucket, prefix: "" };
  const isPlain = (segment: string) => /^[\w.=-]+$/.test(segment) && !/^\.+$/.test(segment);
  return segments.every(isPlain) ? { bucket, prefix: `${segments.join("/")}/` } : undefined;
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** @throws INVALID_OPTION naming the variable that is missing or wrong */
export function accessFrom(env: Environment, { bucket }: S3Place): S3Access {
  const said = (name: string) => env[name]?.trim() || undefined;
  const accessKeyId = said("AWS_ACCESS_KEY_ID");
  const secretAccessKey = said("AWS_SECRET_ACCESS_KEY");
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    const name = accessKeyId === undefined ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY";
    throw new LockstepError(
      "INVALID_OPTION",
      `There are no credentials for "s3://${bucket}": the environment variable ${name} is not set.`,
      {
        hint: "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN if they are temporary. `aws configure export-credentials --format env` prints those of a profile.",
      },
    );
  }
  const region = said("AWS_REGION") ?? said("AWS_DEFAULT_REGION") ?? "us-east-1";
  const sessionToken = said("AWS_SESSION_TOKEN");
  const stated = said("AWS_ENDPOINT_URL_S3") ?? said("AWS_ENDPOINT_URL");
  return {
    ...endpointOf(stated, region, bucket),
    region,
    accessKeyId,
    secretAccessKey,
    ...(sessionToken === undefined ? {} : { sessionToken }),
  };
}

function endpointOf(
  stated: string | undefined,
  region: string,
  bucket: string,
): Pick<S3Access, "endpoint" | "isPathStyle"> {
  if (stated === undefined) {
    // A dot in the name would not fit the certificate of the host.
    const isPathStyle = bucket.includes(".");
    return { endpoint: `https://s3.${region}.amazonaws.com`, isPathStyle };
  }
  const url = URL.canParse(stated) ? new URL(stated) : undefined;
  const isHttp = url?.protocol === "https:" || url?.protocol === "http:";
  if (url === undefined || !isHttp || url.username !== "" || url.search !== "") {
    throw new LockstepError(
      "INVALID_OPTION",
      "The environment variable AWS_ENDPOINT_URL_S3 (or AWS_ENDPOINT_URL) is not the URL of a server.",
      { hint: "Write it as https://s3.example.org or http://127.0.0.1:9000, without a bucket." },
    );
  }
  return { endpoint: url.href.replace(/\/+$/, ""), isPathStyle: true };
}
