/**
 * Two network namespaces of this benchmark, and a link of a given speed between them. Needs Linux,
 * root and iproute2.
 */
import { execFileSync } from "node:child_process";

export interface Link {
  /** The address of each end. */
  readonly addresses: readonly [string, string];
  /** The device of each end. */
  readonly devices: readonly [string, string];
  /** Returns the words that start a command at an end. */
  prefix(end: 0 | 1): string[];
  close(): void;
}

/**
 * Returns undefined if the system has no namespaces.
 * @param megabits the speed of each direction, in megabits per second
 */
export function makeLink(megabits: number): Link | undefined {
  const name = `lb${process.pid % 100_000}`;
  const spaces = [`${name}a`, `${name}b`] as const;
  const devices = [`${name}0`, `${name}1`] as const;
  const addresses = ["10.78.0.1", "10.78.0.2"] as const;
  const ip = (...words: string[]) => execFileSync("ip", words, { stdio: "ignore" });
  const prefix = (end: 0 | 1) => ["ip", "netns", "exec", spaces[end]];
  const close = () => {
    for (const space of spaces) {
      try {
        ip("netns", "delete", space);
      } catch {
        // The namespace was not created.
      }
    }
  };
  try {
    for (const space of spaces) ip("netns", "add", space);
    const [a, b] = devices;
    ip("link", "add", a, "netns", spaces[0], "type", "veth", "peer", "name", b, "netns", spaces[1]);
    for (const end of [0, 1] as const) {
      ip("-n", spaces[end], "address", "add", `${addresses[end]}/24`, "dev", devices[end]);
      for (const device of ["lo", devices[end]]) ip("-n", spaces[end], "link", "set", device, "up");
      const rate = `tbf rate ${megabits}mbit burst 256kb latency 50ms`.split(" ");
      const words = ["tc", "qdisc", "add", "dev", devices[end], "root", ...rate];
      ip("netns", "exec", spaces[end], ...words);
    }
    return { addresses, devices, prefix, close };
  } catch {
    close();
    return undefined;
  }
}
