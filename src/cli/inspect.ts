/** `lockstep inspect MODEL.onnx`. */

import { formatInspection, inspectModel } from "../import/index.ts";
import { printable, printableJson } from "../telemetry/index.ts";

export function inspectCommand(model: string, { json }: { readonly json?: boolean }): void {
  const inspection = inspectModel(model);
  console.log(
    json === true
      ? printableJson(JSON.stringify(inspection, null, 2))
      : printable(formatInspection(inspection)),
  );
}
