/** What restoring weights knows of a file, whichever way they were lost. */
import type { OnnxFile, RawTensor } from "../onnx/index.ts";
import type { GraphEdit } from "./edit.ts";
import type { Operation } from "./exported.ts";
import type { Read } from "./weights.ts";

export interface RestoreContext {
  readonly file: OnnxFile;
  readonly floats: ReadonlyMap<string, RawTensor>;
  readonly edit: GraphEdit;
  /** The reads of initializers that are not parameters themselves. */
  readonly reads: readonly Read[];
  /** The operation of each node. */
  readonly operations: readonly (Operation | undefined)[];
}
