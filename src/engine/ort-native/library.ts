/**
 * Finds the library of ONNX Runtime: inside the `onnxruntime-node` package, or at the path in
 * LOCKSTEP_ORT_LIBRARY.
 */
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { LockstepError } from "../../errors.ts";

/** The path of the library, which is checked to exist. Throws ENGINE_LIBRARY. */
export function findOrtLibrary(given: string | undefined): string {
  const wanted = given ?? process.env["LOCKSTEP_ORT_LIBRARY"];
  if (wanted !== undefined && wanted !== "") {
    if (fs.existsSync(wanted)) return path.resolve(wanted);
    throw new LockstepError("ENGINE_LIBRARY", `There is no ONNX Runtime library at ${wanted}.`, {
      hint: "LOCKSTEP_ORT_LIBRARY must name libonnxruntime itself.",
      fields: { path: wanted },
    });
  }
  const system = `${process.platform} ${process.arch}`;
  const folder = path.join(packageFolder(), "bin", "napi-v6", process.platform, process.arch);
  const names = fs.existsSync(folder) ? fs.readdirSync(folder) : [];
  const name = names.find((file) => /^(lib)?onnxruntime(\.so|\.\d|\.dylib|\.dll)/.test(file));
  if (name === undefined) {
    throw new LockstepError(
      "ENGINE_LIBRARY",
      `The onnxruntime-node package has no library for ${system} (${folder}).`,
      {
        hint: "Install ONNX Runtime for this system and name its library in LOCKSTEP_ORT_LIBRARY.",
        fields: { system },
      },
    );
  }
  return path.join(folder, name);
}

function packageFolder(): string {
  try {
    const entry = createRequire(import.meta.url).resolve("onnxruntime-node/package.json");
    return path.dirname(entry);
  } catch (cause) {
    throw new LockstepError("ENGINE_LIBRARY", "The package onnxruntime-node is not installed.", {
      hint: "Run npm install, or name a library in LOCKSTEP_ORT_LIBRARY.",
      cause,
    });
  }
}
