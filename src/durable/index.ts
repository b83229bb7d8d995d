export { type EtcdOptions, openEtcdStore } from "./etcd-store.ts";
export { openFolderStore } from "./folder-store.ts";
export { openStateStore } from "./open.ts";
export { type StateStore } from "./store.ts";
