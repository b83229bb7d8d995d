/** Opens the store that a person names: a folder, or a name in etcd. */
import { LockstepError } from "../errors.ts";
import { openEtcdStore } from "./etcd-store.ts";
import { openFolderStore } from "./folder-store.ts";
import type { StateStore } from "./store.ts";

const ETCD = /^etcd(s?):\/\/([^/]+)\/([\w./-]+)$/;

/**
 * @param place a folder; or etcd://HOST:PORT[,HOST:PORT…]/NAME (etcds:// for TLS)
 * @throws RUN_LOCKED while another coordinator has the store and lives; INVALID_OPTION; IO_FAILED
 */
export async function openStateStore(place: string, signal?: AbortSignal): Promise<StateStore> {
  const options = signal === undefined ? {} : { signal };
  if (!/^etcds?:/.test(place)) return openFolderStore(place, options);
  const [, tls, hosts, name] = ETCD.exec(place) ?? [];
  if (hosts === undefined || name === undefined) {
    throw new LockstepError("INVALID_OPTION", `"${place}" is not a place of etcd.`, {
      hint: "Write etcd://HOST:PORT/NAME, with several HOST:PORT between commas if you like.",
      fields: { place },
    });
  }
  const urls = hosts.split(",").map((host) => `${tls === "" ? "http" : "https"}://${host}`);
  return openEtcdStore(urls, name, options);
}
