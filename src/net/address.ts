/**
 * Parses addresses as people write them: `host:port`, `[v6]:port`. An interface is named by its
 * address, never guessed.
 */
import { LockstepError } from "../errors.ts";

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** @throws ADDRESS when the text is not an address */
export function parseAddress(text: string): Address {
  const [, six, four, digits] =
    /^(?:\[([0-9a-fA-F:.%\w]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = six ?? four;
  const port = Number(digits);
  if (host !== undefined && port <= 65535) return { host, port };
  throw new LockstepError("ADDRESS", `"${text}" is not an address.`, {
    hint: "Write host:port, or [address]:port for IPv6.",
  });
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Turns a system error about an address into one of ours. `resolved` is the address that the host's
 * name stands for.
 */
export function addressError(
  error: NodeJS.ErrnoException,
  address: Address,
  resolved = address.host,
): LockstepError {
  const where = formatAddress(address);
  const [what, hint] = explain(error.code, where);
  return new LockstepError("ADDRESS", what, {
    ...(hint === undefined ? {} : { hint }),
    fields: { address: where, systemCode: error.code ?? "", resolved },
    cause: error,
  });
}

function explain(code: string | undefined, where: string): [string, string?] {
  switch (code) {
    case "EADDRINUSE":
      return [`${where} is in use by another program.`, "Choose another port, or 0 for any."];
    case "EADDRNOTAVAIL":
      return [
        `${where} is not an address of this machine.`,
        "Name one of this machine's addresses.",
      ];
    case "EACCES":
      return [`This user is not allowed to listen at ${where}.`, "Choose a port from 1024 on."];
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return [`The host of ${where} is not known.`];
    default:
      return [`${where} cannot be reached: ${code ?? "unknown error"}.`];
  }
}
