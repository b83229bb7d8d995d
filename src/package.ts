/**
 * This package as it is installed. Its modules lie in `dist/` as a bundle, which people run, or one
 * by one in `build/src/`, for tests.
 */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The folder of this module: the bundle's, which has no folders within, or `build/src/`. */
const modules = new URL("./", import.meta.url);
const root = ["../", "../../"]
  .map((up) => new URL(up, modules))
  .find((folder) => existsSync(new URL("package.json", folder))) as URL;

/** The version that package.json states. */
export function version(): string {
  const text = readFileSync(new URL("package.json", root), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

/** The module with which the process of a worker starts: the bundle's, which loads fast. */
export function workerEntry(): string {
  return fileURLToPath(new URL("dist/worker-start.js", root));
}

/** Whether a line of a stack names a module of this package. */
export function isOwnModule(line: string): boolean {
  return [modules.href, modules.pathname].some((place) => line.includes(place));
}
