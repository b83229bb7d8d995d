/**
 * Keeps the queues of streams within the machine short, so that the data on its way stays in the
 * cache. The system lets a queue grow to megabytes, which a network needs and a loopback does not;
 * each byte would then go to memory and back.
 */
import type net from "node:net";
import { loadSystemLibrary } from "../memory/index.ts";

type SetSocketOption = (
  fd: number,
  level: number,
  name: number,
  value: Uint8Array,
  length: number,
) => number;

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
/**
 * The system doubles this value for its own needs. More than 768 KiB brings nothing, and with less
 * than 256 KiB streams run dry (docs/lab.md).
 */
const QUEUE_BYTES = 2 ** 19;

let setSocketOption: SetSocketOption | undefined;

/**
 * Does nothing if the stream leaves the machine, or the system is not Linux. It is only a hint, so
 * failures do not matter.
 */
export function keepQueueShort(socket: net.Socket): void {
  const { localAddress, remoteAddress } = socket;
  if (process.platform !== "linux" || localAddress !== remoteAddress) return;
  const { _handle: handle } = socket as { _handle?: { fd?: number } | null };
  if (handle?.fd === undefined || handle.fd < 0) return;
  setSocketOption ??= loadSystemLibrary().func<SetSocketOption>(
    "int setsockopt(int fd, int level, int name, const void *value, uint32_t length)",
  );
  const value = new Uint8Array(Int32Array.of(QUEUE_BYTES).buffer);
  setSocketOption(handle.fd, SOL_SOCKET, SO_SNDBUF, value, value.byteLength);
}
