/**
 * The architecture's rules that a machine can check: who may import whom, no cycles, one door for
 * each folder, small files, and no socket, clock, randomness or console where they do not belong.
 * ARCHITECTURE.md says why.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { globSync } from "tinyglobby";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** What each folder may import besides itself, in the order of the data. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  package: [],
  options: ["errors"],
  tensor: ["errors"],
  files: ["errors"],
  memory: ["errors"],
  safetensors: ["errors", "tensor", "files"],
  s3: ["errors"],
  checkpoint: ["errors", "tensor", "files", "memory", "safetensors", "s3"],
  telemetry: ["errors", "files"],
  mesh: ["errors"],
  graph: ["errors", "tensor", "mesh"],
  functional: ["errors", "options", "tensor", "graph"],
  ops: ["errors", "tensor", "mesh", "graph", "functional"],
  autodiff: ["errors", "tensor", "graph", "functional", "ops"],
  reference: ["errors", "tensor", "mesh", "graph", "ops"],
  nn: ["errors", "options", "tensor", "graph", "functional", "ops", "autodiff"],
  optimizer: ["errors", "options", "tensor", "graph", "functional"],
  onnx: ["errors", "options", "tensor", "files", "memory", "graph", "ops"],
  import: [
    "errors",
    "options",
    "tensor",
    "files",
    "safetensors",
    "graph",
    "functional",
    "ops",
    "reference",
    "nn",
    "onnx",
  ],
  data: ["errors", "options", "tensor", "files", "safetensors"],
  engine: ["errors", "options", "tensor", "files", "memory", "graph", "ops", "reference", "onnx"],
  net: ["errors", "memory"],
  transport: ["errors", "memory", "net"],
  collectives: ["errors", "tensor", "memory", "engine", "transport"],
  plan: [
    "errors",
    "tensor",
    "graph",
    "functional",
    "ops",
    "autodiff",
    "reference",
    "nn",
    "optimizer",
    "mesh",
  ],
  parallel: ["errors", "tensor", "graph", "functional", "ops", "optimizer", "mesh", "plan"],
  program: [
    "errors",
    "tensor",
    "graph",
    "functional",
    "ops",
    "autodiff",
    "nn",
    "optimizer",
    "engine",
    "collectives",
    "mesh",
    "plan",
  ],
  execute: [
    "errors",
    "tensor",
    "memory",
    "graph",
    "functional",
    "ops",
    "nn",
    "engine",
    "collectives",
    "program",
  ],
  train: [
    "errors",
    "options",
    "tensor",
    "files",
    "memory",
    "graph",
    "nn",
    "optimizer",
    "engine",
    "collectives",
    "mesh",
    "plan",
    "parallel",
    "program",
    "execute",
  ],
  membership: ["errors"],
  run: ["*"],
  job: [
    "errors",
    "package",
    "tensor",
    "files",
    "memory",
    "safetensors",
    "graph",
    "nn",
    "optimizer",
    "onnx",
    "data",
    "run",
  ],
  durable: ["errors", "files", "run"],
  protocol: ["errors", "telemetry", "net", "run", "job"],
  launch: [
    "errors",
    "package",
    "files",
    "memory",
    "telemetry",
    "engine",
    "net",
    "transport",
    "collectives",
    "membership",
    "durable",
    "run",
    "train",
    "job",
    "protocol",
  ],
  chaos: ["errors", "net", "checkpoint", "launch"],
  agent: ["errors", "files", "net", "job", "protocol", "launch"],
  cli: ["*"],
  index: ["*"],
};

/** Folders that only decide and compute: no clock, no randomness, no socket, no file. */
const PURE = [
  "tensor",
  "graph",
  "functional",
  "ops",
  "autodiff",
  "reference",
  "nn",
  "optimizer",
  "mesh",
  "plan",
  "parallel",
  "program",
  "membership",
];

/** Files over the limit, each with its reason. */
const LONG_FILES: Readonly<Record<string, string>> = {
  "src/graph/builder.ts": "one class with one life: the only mutable form of a graph",
};
const MAX_LINES = 320;

interface Import {
  readonly target: string;
  readonly typeOnly: boolean;
}

interface Source {
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

const sources: readonly Source[] = globSync("src/**/*.ts", { cwd: root })
  .sort()
  .map((path) => {
    const text = readFileSync(join(root, path), "utf8");
    return { path, text, imports: importsOf(path, text) };
  });
const production = sources.filter(({ path }) => !/\.test(?:ing)?\.ts$/.test(path));

function importsOf(path: string, text: string): Import[] {
  const pattern = /(?:import|export)\s+(type\s+)?(\{[^}]*\}|[\w*\s,]+)\s+from\s+"(\.[^"]+)"/g;
  return [...text.matchAll(pattern)].map((match) => {
    const names = (match[2] ?? "").replace(/[{}\s]/g, " ").split(",");
    const allTypes = names.every((name) => name.trim() === "" || name.trim().startsWith("type "));
    return {
      target: relative(root, join(root, dirname(path), match[3] as string)),
      typeOnly: match[1] !== undefined || allTypes,
    };
  });
}

function folderOf(path: string): string {
  const [, first = ""] = path.split("/");
  return first.replace(/\.ts$/, "");
}

function breaches(check: (source: Source) => readonly string[]): string[] {
  return production.flatMap((source) => check(source).map((what) => `${source.path}: ${what}`));
}

test("every folder of src is in the table", () => {
  const folders = new Set(production.map(({ path }) => folderOf(path)));
  assert.deepEqual(
    [...folders].filter((folder) => !(folder in MAY_IMPORT)),
    [],
  );
});

test("folders import only what the table allows, through one door", () => {
  const found = breaches(({ path, imports }) => {
    const from = folderOf(path);
    const allowed = MAY_IMPORT[from] ?? [];
    return imports.flatMap(({ target }) => {
      const to = folderOf(target);
      if (to === from || !target.startsWith("src/")) return [];
      if (!allowed.includes("*") && !allowed.includes(to)) return [`imports ${to}/`];
      const isDoor = target === `src/${to}.ts` || target === `src/${to}/index.ts`;
      // The reference kernels are total over each family of operators, by the family's own type.
      const isFamily = from === "reference" && /^src\/ops\/\w+\/index\.ts$/.test(target);
      return isDoor || isFamily ? [] : [`imports ${target}, not src/${to}/index.ts`];
    });
  });
  assert.deepEqual(found, []);
});

test("inside a folder, files import files and not the folder's own door", () => {
  const found = breaches(({ path, imports }) =>
    path.endsWith("/index.ts")
      ? []
      : imports
          .filter(({ target }) => target === `src/${folderOf(path)}/index.ts`)
          .map(() => "imports its own index.ts"),
  );
  assert.deepEqual(found, []);
});

test("no import cycles, imports of types included", () => {
  const edges = new Map(
    production.map(({ path, imports }) => [path, imports.map(({ target }) => target)]),
  );
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (path: string, way: readonly string[]): void => {
    if (way.includes(path)) {
      cycles.push([...way.slice(way.indexOf(path)), path].join(" -> "));
      return;
    }
    if (done.has(path)) return;
    for (const next of edges.get(path) ?? []) visit(next, [...way, path]);
    done.add(path);
  };
  for (const path of edges.keys()) visit(path, []);
  assert.deepEqual(cycles, []);
});

// The linter finds `any`, because it distinguishes types from words.
test("no export *, no default exports, no enums, no ts-ignore", () => {
  const forbidden: readonly [RegExp, string][] = [
    [/^export \*/m, "export *"],
    [/^export default/m, "export default"],
    [/^\s*(?:export )?(?:const )?enum /m, "enum"],
    [/@ts-(?:ignore|nocheck)/, "a silenced type error"],
  ];
  const found = breaches(({ text }) =>
    forbidden.filter(([pattern]) => pattern.test(text)).map(([, name]) => name),
  );
  assert.deepEqual(found, []);
});

test("pure folders have no clock, no randomness, no socket and no file", () => {
  const forbidden =
    /\b(?:Math\.random|Date\.now|new Date|performance\.now|setTimeout|setInterval)\b|node:(?:net|http|fs|tls|dgram|child_process|worker_threads)/;
  const found = breaches(({ path, text }) =>
    PURE.includes(folderOf(path)) && forbidden.test(text)
      ? [`uses ${forbidden.exec(text)?.[0]}`]
      : [],
  );
  assert.deepEqual(found, []);
});

test("files are small, and exceptions have a reason", () => {
  const found = breaches(({ path, text }) => {
    const lines = text.split("\n").length;
    return lines > MAX_LINES && !(path in LONG_FILES) ? [`${lines} lines`] : [];
  });
  assert.deepEqual(found, []);
});

test("each source file says at its head what it is", () => {
  const found = breaches(({ path, text }) =>
    path.endsWith("index.ts") ||
    text.includes("/**") ||
    text.startsWith("//") ||
    text.startsWith("#!")
      ? []
      : ["has no comment that says what it is"],
  );
  assert.deepEqual(found, []);
});
