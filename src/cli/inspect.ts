/** `lockstep inspect MODEL.onnx`. */
import { formatInspection, inspectModel } from "../onnx/index.ts";

export function inspectCommand(model: string, { json }: { readonly json?: boolean }): void {
  const inspection = inspectModel(model);
  console.log(json === true ? JSON.stringify(inspection, null, 2) : formatInspection(inspection));
}
