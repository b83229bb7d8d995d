// Bundles the command, the worker and the library into dist/, which people install: a process that
// loads a few files starts in a third of the time that 700 modules take. docs/decisions/0036 says
// more. A file is written only if it changed, since processes may be running from the folder.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const folder = join(root, "dist");
/** What carries native code, or files that it finds beside itself, is loaded as it is installed. */
const EXTERNAL = ["koffi", /^onnxruntime-node/, "jiti"];

const bundle = await rolldown({
  cwd: root,
  input: {
    main: "src/cli/main.ts",
    "worker-start": "src/launch/worker-start.ts",
    index: "src/index.ts",
  },
  platform: "node",
  external: EXTERNAL,
});
const { output } = await bundle.generate({ format: "esm", chunkFileNames: "[name].js" });
const files = new Map(output.map(({ fileName, code }) => [fileName, code]));
const modules = output.flatMap(({ moduleIds }) => moduleIds ?? []);
files.set("third-party-licenses.txt", licences(modules));

mkdirSync(folder, { recursive: true });
for (const [name, text] of files) {
  const path = join(folder, name);
  if (!existsSync(path) || readFileSync(path, "utf8") !== text) writeFileSync(path, text);
}
for (const name of readdirSync(folder)) if (!files.has(name)) rmSync(join(folder, name));

/** The licences of the packages that the bundle contains, which ask to travel with their code. */
function licences(ids) {
  const folders = ids.map((id) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0]);
  const texts = [...new Set(folders)].filter((path) => path !== undefined).map(licenceOf);
  return texts.sort().join(`\n${"-".repeat(80)}\n\n`);
}

function licenceOf(path) {
  const { name, version, license } = JSON.parse(readFileSync(join(path, "package.json"), "utf8"));
  const file = readdirSync(path).find((entry) => /^licen[cs]e/i.test(entry));
  if (file === undefined) return `${name} ${version}: ${license}\n`;
  return `${name} ${version}\n\n${readFileSync(join(path, file), "utf8")}`;
}
